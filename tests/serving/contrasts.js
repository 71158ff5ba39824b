// For each text that is shown its contrast with what is behind it, from 1 to 21, as WCAG 2.2 computes it.
const luminance = ([r, g, b]) => {
  const [R, G, B] = [r, g, b].map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * R + 0.7152 * G + 0.0722 * B;
};
const parts = (color) => color.match(/[\d.]+/g).map(Number);
const behind = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const color = parts(getComputedStyle(at).backgroundColor);
    if (color[3] !== 0) return color;
  }
  return [255, 255, 255];
};
const found = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement, text = walker.currentNode.data.trim();
  if (!text || !element.checkVisibility() || element.closest("script")) continue;
  const [one, other] = [parts(getComputedStyle(element).color), behind(element)].map(luminance);
  found.push([text, (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05)]);
}
return found;
