"""The page of a live server, used in a real browser."""

import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from deltas import make_delta
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from small import make_encoder_folder, make_task, sentences

from trimtab.changes.delta import Delta
from trimtab.encoders.encoder import Encoder, load
from trimtab.serving.app import application
from trimtab.serving.pool import Pool, TaskPrediction
from trimtab.serving.process import listen
from trimtab.serving.settings import ServerSettings

TOKEN = "0123456789abcdef"
LIMIT = 60.0
EVIL = "<img src=x onerror=document.title='evil'>"
ANIMALS = ("cat", "dog", "fish", EVIL, "owl")
TEXT, OTHER = sentences(2, seed=5)
Browser = webdriver.Chrome
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Chromium, which can reach this machine alone."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("there is no chromium with its chromedriver: on Debian, apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in (
        "headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu", "window-size=1200,900", "lang=en",
        "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "disable-background-networking",
        f"user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):  # fmt: skip
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options, webdriver.ChromeService(driver))
    started.set_page_load_timeout(LIMIT)
    yield started
    started.quit()


class Served:
    """A pool's app on a free port, and answers that it is made to give instead of its own."""

    def __init__(self, pool: Pool, settings: ServerSettings):
        self.pool, self._app = pool, application(pool, settings)
        self.instead: Callable[[], tuple[int, bytes]] | None = None  # of POST /v1/predict
        self.asked = 0  # requests of that kind
        self._socket = listen("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(
            self._answer, interface="asgi3", lifespan="on", log_config=None, timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})
        self._thread.start()

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        if scope.get("path") == "/v1/predict":
            self.asked += 1
            if self.instead is not None:
                status, body = self.instead()
                await send({"type": "http.response.start", "status": status, "headers": [(b"retry-after", b"3")]})
                return await send({"type": "http.response.body", "body": body})
        await self._app(scope, receive, send)

    def end(self) -> None:
        self._server.should_exit = True
        self._thread.join(LIMIT)
        assert not self._thread.is_alive()
        self._socket.close()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return load(make_encoder_folder("bert", tmp_path_factory.mktemp("page") / "encoder"))


@pytest.fixture(scope="module")
def runs(small: Encoder) -> dict[str, Delta]:
    """A task of each kind, one of pairs, one that reads few tokens; a name and a class are markup."""
    single, several = (replace(make_task(kind), classes=ANIMALS) for kind in ("single_label", "multi_label"))
    return {
        "animals": make_delta(small, single, "layer_norms", 1),
        "present": make_delta(small, several, "last_layers:k=1", 2),
        "count": make_delta(small, make_task("regression"), "head", 3),
        "pairs": make_delta(small, make_task(pairs=True), "layer_norms", 4),
        EVIL: make_delta(small, make_task(), "biases", 5, max_length=4),
    }


@pytest.fixture
def serve(small: Encoder) -> Iterator[Callable[..., Served]]:
    """Starts a server of these runs, with these settings."""
    started: list[Served] = []

    def start(runs: dict[str, Delta], **settings: Any) -> Served:
        pool = Pool(small, runs, compute="float32", most_letters=400)
        started.append(Served(pool, ServerSettings(**settings)))
        return started[-1]

    yield start
    for each in started:
        each.end()


def until(browser: Browser, is_so: Callable[[], Any]) -> Any:
    """What `is_so` says, once it is more than nothing."""
    return WebDriverWait(browser, LIMIT, 0.05).until(lambda _: is_so())


def said(browser: Browser, id_: str) -> str:
    return browser.find_element(By.ID, id_).text


def opened(browser: Browser, served: Served, wait_for: str = "Type a text to see") -> None:
    browser.get_log("browser")  # of the page before
    browser.get(served.url)
    until(browser, lambda: wait_for in browser.find_element(By.TAG_NAME, "body").text)


def cards(browser: Browser) -> dict[str, Any]:
    """The tasks' cards that are shown, by name."""
    script = (
        "return [...document.querySelectorAll('#cards > li')].map((li) => [li.firstChild.textContent, li, li.hidden])"
    )
    return {name: card for name, card, is_hidden in browser.execute_script(script) if not is_hidden}


def predicted(browser: Browser, text: str, second: str = "", *, key: bool = False) -> str:
    """Types, and waits for the predictions; returns what the page says of them."""
    for id_, typed in (("text", text), ("pair", second)):
        field = browser.find_element(By.ID, id_)
        if field.is_displayed():
            field.clear()
            field.send_keys(typed)
    if key:
        browser.find_element(By.ID, "text").send_keys(Keys.CONTROL, Keys.ENTER)
    else:
        browser.find_element(By.ID, "predict").click()
    return until(browser, lambda: re.search(r"^[\d,]+ tasks? predicted.*", said(browser, "status"))).group()


def shown_classes(card: Any) -> list[tuple[str, str, bool]]:
    """Of a card its classes, with what is said of their probabilities, and whether they are the prediction."""
    rows = card.find_elements(By.CSS_SELECTOR, ".classes > li")
    return [
        (
            row.find_element(By.TAG_NAME, "bdi").text,
            row.text.rsplit("\n", 1)[-1],
            row.get_attribute("class") == "chosen",
        )
        for row in rows
    ]


def expected_classes(found: TaskPrediction, n: int | None = None) -> list[tuple[str, str, bool]]:
    """As `shown_classes`, of what the pool says."""
    assert found.probabilities is not None
    given = found.label if isinstance(found.label, tuple) else (found.label,)
    ordered = sorted(found.probabilities.items(), key=lambda each: -each[1])
    return [(name, f"{100 * share:.1f}%", name in given) for name, share in ordered[:n]]


def complaints(browser: Browser) -> list[str]:
    """What the browser has against the page: broken scripts, and all that its policy forbids."""
    logged: Any = browser.get_log("browser")
    return [each["message"] for each in logged if "the server responded with a status" not in each["message"]]


def test_every_task_of_a_text(browser: Browser, runs: dict[str, Delta], serve: Any) -> None:
    served = serve(runs)
    opened(browser, served)
    assert [*cards(browser)] == [*runs]
    assert said(browser, "title") == "5 tasks"
    assert predicted(browser, TEXT, OTHER, key=True) == "5 tasks predicted."
    pool, shown = served.pool, cards(browser)
    (found,) = pool.predict_all([TEXT], [name for name in runs if name != "pairs"])
    (found["pairs"],) = pool.predict([("pairs", (TEXT, OTHER))])
    for name, card in shown.items():
        assert f"version {found[name].version}" in card.text
        assert f"{found[name].tokens} tokens" in card.text
        assert ("Truncated" in card.text) == found[name].truncated == (name == EVIL)
        if name == "count":
            value = card.find_element(By.CSS_SELECTOR, ".value")
            assert float(value.get_attribute("title")) == pytest.approx(found[name].value, abs=1e-5)
            assert float(value.text) == pytest.approx(found[name].value, rel=1e-3)
            continue
        n_chosen = len(found[name].label) if isinstance(found[name].label, tuple) else 1
        assert shown_classes(card) == expected_classes(found[name], max(3, n_chosen))
    assert re.match(
        r"\d+ ms from here; in the server \d+ ms to read, \d+ ms to wait, \d+ ms to", said(browser, "times")
    )
    assert said(browser, "times").endswith(f" {sum(each.tokens for each in found.values())} tokens.")
    assert said(browser, "asked") == f"For “{TEXT}” and “{OTHER}”"
    # The first task's other classes, by the keyboard.
    button = shown["animals"].find_element(By.CSS_SELECTOR, ".more")
    assert (button.get_attribute("aria-expanded"), button.text.split("\n")[0][:10]) == ("false", "Show all 5")
    button.send_keys(Keys.ENTER)
    assert shown_classes(shown["animals"]) == expected_classes(found["animals"])
    button = shown["animals"].find_element(By.CSS_SELECTOR, ".more")
    assert button.get_attribute("aria-expanded") == "true"
    assert button == browser.switch_to.active_element
    assert predicted(browser, TEXT) == "4 tasks predicted. 1 task has an error."
    assert "it reads two texts" in cards(browser)["pairs"].text
    # Markup in a task's and a class's name has stayed text.
    assert EVIL in [name for name, *_ in shown_classes(cards(browser)["animals"])]
    assert not browser.find_elements(By.TAG_NAME, "img")
    assert browser.title == "trimtab"
    assert complaints(browser) == []


def test_the_last_text_counts(browser: Browser, runs: dict[str, Delta], serve: Any) -> None:
    served = serve({f"task-{n}": runs["animals"] for n in range(60)}, most_tasks=2)
    opened(browser, served)
    browser.execute_script(
        "for (const text of arguments) { document.getElementById('text').value = text; predict(); }", *[TEXT] * 5, OTHER
    )
    until(browser, lambda: said(browser, "status") == "60 tasks predicted.")
    assert said(browser, "asked") == f"For “{OTHER}”"
    (found,) = served.pool.predict_all([OTHER], ["task-59"])
    assert found["task-59"].probabilities != served.pool.predict([("task-59", TEXT)])[0].probabilities
    assert shown_classes(cards(browser)["task-59"]) == expected_classes(found["task-59"], 1)
    assert complaints(browser) == []


def test_what_markup_a_text_has_is_quoted(browser: Browser, runs: dict[str, Delta], serve: Any) -> None:
    opened(browser, serve({"animals": runs["animals"]}))
    assert not browser.find_element(By.ID, "pair").is_displayed()
    assert predicted(browser, f"{EVIL}<script>document.title='evil'</script>") == "1 task predicted."
    assert said(browser, "asked") == f"For “{EVIL}<script>document.title='evil'</script>”"
    assert (browser.title, browser.find_elements(By.TAG_NAME, "img")) == ("trimtab", [])


def test_the_policy_stops_what_is_put_in(browser: Browser, runs: dict[str, Delta], serve: Any) -> None:
    """As a fault of the page would let it in: the policy is what stands behind it."""
    opened(browser, serve({"animals": runs["animals"]}))
    put_in = "try { document.body.innerHTML = arguments[0] } catch (error) { return error.name }"
    assert browser.execute_script(put_in, EVIL) == "TypeError"
    browser.execute_script("const i = document.createElement('img'); i.src = '/docs?x'; document.body.append(i)")
    assert any("Content Security Policy" in message for message in until(browser, lambda: complaints(browser)))


def test_the_token_is_asked_for_and_forgotten(browser: Browser, runs: dict[str, Delta], serve: Any) -> None:
    opened(browser, serve({"animals": runs["animals"]}, token=TOKEN), "This server asks for its token")
    field = browser.find_element(By.ID, "token")
    assert field == browser.switch_to.active_element
    field.send_keys("häßlich", Keys.ENTER)
    assert "ASCII" in said(browser, "token-said")
    field.clear()
    field.send_keys("wrong" * 5, Keys.ENTER)
    until(browser, lambda: "does not know" in said(browser, "token-said"))
    field.send_keys(Keys.ESCAPE)
    until(browser, lambda: "Without the server's token" in said(browser, "alert"))
    browser.find_element(By.ID, "text").send_keys(TEXT, Keys.CONTROL, Keys.ENTER)
    until(browser, field.is_displayed)
    field.send_keys(TOKEN, Keys.ENTER)
    until(browser, lambda: said(browser, "status") == "1 task predicted.")
    assert said(browser, "alert") == ""
    stored = (
        "return [localStorage.length, sessionStorage.length, document.cookie, document.getElementById('token').value]"
    )
    assert browser.execute_script(stored) == [0, 0, "", ""]
    browser.refresh()
    until(browser, lambda: browser.find_element(By.ID, "token").is_displayed())


def test_errors_are_said_in_words(browser: Browser, runs: dict[str, Delta], serve: Any) -> None:
    served = serve({"animals": runs["animals"], "count": runs["count"]})
    opened(browser, served)
    browser.find_element(By.ID, "predict").click()
    assert said(browser, "status") == "Type a text first."
    assert predicted(browser, "cat " * 101) == "0 tasks predicted. 2 tasks have an error."
    assert "at most 400 are read" in cards(browser)["count"].text
    for status, body, words in (
        (
            500,
            b"<html>",
            "The server answered with status 500 and nothing that this page can read (in 3 seconds, it says).",
        ),
        (200, b'{"predictions": NaN', "The server answered with status 200 and nothing"),
        (
            429,
            b'{"error": {"code": "overloaded", "message": "too many <b>wait</b>"}}',
            "Too many <b>wait</b> (in 3 sec",
        ),
        (200, b'{"predictions": [{}]}', "This page has failed: "),
    ):
        served.instead = lambda status=status, body=body: (status, body)
        assert predicted(browser, TEXT) == "0 tasks predicted. 2 tasks have no prediction."
        assert said(browser, "alert").startswith(words)
    served.instead = None
    assert predicted(browser, TEXT) == "2 tasks predicted."
    assert said(browser, "alert") == ""
    # A task that has gone since the page was opened, and one that has come.
    served.pool.remove("animals")
    served.pool.add("newer", runs["animals"])
    assert predicted(browser, TEXT) == "2 tasks predicted."
    assert [*cards(browser)] == ["count", "newer"]
    # One task's error is the answer to the whole request.
    served.pool.remove("newer")
    assert predicted(browser, "cat " * 101) == "0 tasks predicted. 1 task has an error."
    assert "at most 400 are read" in cards(browser)["count"].text
    served.end()
    browser.find_element(By.ID, "predict").click()
    until(browser, lambda: said(browser, "alert").startswith("The server cannot be reached"))


def test_a_hundred_tasks(browser: Browser, runs: dict[str, Delta], serve: Any) -> None:
    names = [f"{'team' if n % 10 else 'desk'}-{n}" for n in range(100)]
    kinds = [runs["animals"], runs["count"]]
    served = serve({name: kinds[n % 2] for n, name in enumerate(names)}, most_tasks=30)
    opened(browser, served)
    assert predicted(browser, TEXT) == "100 tasks predicted."
    assert served.asked > 4  # as the server wants fewer at once
    shown = cards(browser)
    assert [*shown] == names
    assert len(shown_classes(shown["desk-0"])) == 1
    browser.find_element(By.ID, "filter").send_keys("DESK 0")
    assert [*cards(browser)] == [name for name in names if name.startswith("desk")]
    assert said(browser, "title") == "10 of 100 tasks"
    before = served.asked
    assert said(browser, "predict") == "Predict with 10 tasks"
    assert predicted(browser, OTHER) == "10 tasks predicted."
    assert served.asked == before + 1
    (found,) = served.pool.predict_all([OTHER], ["desk-0"])
    assert shown_classes(cards(browser)["desk-0"]) == expected_classes(found["desk-0"], 1)
    # What was not asked shows no prediction of an earlier text.
    browser.find_element(By.ID, "filter").send_keys(Keys.CONTROL + "a", Keys.BACKSPACE)
    until(browser, lambda: said(browser, "title") == "100 tasks")
    assert not shown_classes(cards(browser)["team-2"])


@pytest.mark.parametrize("width", [320, 390, 1200])
def test_nothing_is_wider_than_the_screen(browser: Browser, runs: dict[str, Delta], serve: Any, width: int) -> None:
    opened(browser, serve({**runs, "a-name-that-is-as-long-as-" + 12 * "names-can-be-": runs["animals"]}))
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    )
    try:
        predicted(browser, "x" * 300, OTHER)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read(browser: Browser, runs: dict[str, Delta], serve: Any, scheme: str) -> None:
    """Contrasts of at least 4.5, as WCAG 2 asks (AA), of every text on what is behind it."""
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    opened(browser, serve(runs))
    predicted(browser, TEXT)
    script = (Path(__file__).parent / "contrasts.js").read_text()
    found = browser.execute_script(script)
    assert len(found) > 20
    assert {text: ratio for text, ratio in found if ratio < 4.5} == {}
    is_dark = browser.execute_script("return matchMedia('(prefers-color-scheme: dark)').matches")
    assert is_dark == (scheme == "dark")


def test_whoever_hears_the_page_knows_what_is_what(browser: Browser, runs: dict[str, Delta], serve: Any) -> None:
    opened(browser, serve({f"task-{n}": run for n, run in enumerate([*runs.values()] * 2)}))
    predicted(browser, TEXT)
    tree: Any = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})
    nodes = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in tree["nodes"] if not node.get("ignored") and "role" in node
    ]  # fmt: skip
    named = {role: {name for of, name in nodes if of == role} for role, _ in nodes}
    assert {"First text", "Second text, for tasks that read two"} <= named["textbox"]
    assert named["searchbox"] == {"Only tasks named"}
    assert "Predict" in named["button"]
    assert "Show all 5 classes of task-0" in named["button"]
    assert {"trimtab", "10 tasks", "task-0"} <= named["heading"]
    assert "status" in named
    for role in ("textbox", "searchbox", "button", "link"):
        assert "" not in named[role]
    # The tabulator goes through all of it in order.
    browser.execute_script("document.querySelector('header a').focus()")
    visited = []
    for _ in range(5):
        webdriver.ActionChains(browser).send_keys(Keys.TAB).perform()
        visited.append(browser.switch_to.active_element)
    assert [each.get_attribute("id") for each in visited] == ["text", "pair", "predict", "filter", ""]
    assert visited[-1].get_attribute("class") == "more"
