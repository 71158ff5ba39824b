"""What the study of the LayerNorm paper compares: its tasks, its methods by part, and where its files lie."""

import json
from pathlib import Path

HERE = Path(__file__).parent
CELLS = Path("benchmarks/layernorm_paper/cells")
SELECTIONS = Path("benchmarks/layernorm_paper/selections")  # relative: the path is a part of the method's name
LIMITS = {"mrpc": None, "cola": None, "rte": None, "sst2": 8000, "ag_news_10k": 4000, "stsb": None}  # training rows
MAX_LENGTH = 256
SHARES = (0.05, 0.1, 0.2, 0.5)
GLOBAL_SHARE = 0.2
COUNT = 9984  # elements of all LayerNorms of minilm
EXAMPLES = 1024
HEAD_STEPS = 100  # of the variant whose head is trained before measuring

RANK_ONE = "lora:rank=1"  # 9,216 elements: less than all LayerNorms have

PARTS_OF_NORMS = ("layer_norms:which=output", "layer_norms:which=attention")  # (b) too
METHODS = ("full", "layer_norms", "biases", "lora", f"random:count={COUNT}", "head")  # (b)
SUBSETS = tuple(  # (d)
    f"{kind}:share={share}{within}"
    for share in SHARES
    for kind, within in (("fisher_top", ""), ("random", ",within=layer_norms"))
)
EVERYWHERE = (  # (f): LayerNorm's count spent on everything; most of it falls to the pooler, unless dealt out by layer
    f"fisher_top:count={COUNT},within=full", f"fisher_top:count={COUNT},per=layer,within=full",
    f"moved_top:count={COUNT},by=gain,within=full", RANK_ONE, f"random:count={COUNT},within=biases",
)  # fmt: skip
BEYOND = (  # other ways to choose a tenth of LayerNorm, or as many elements (998) among biases too
    "fisher_top:share=0.1,given=head", f"fisher_top:share=0.1,head_steps={HEAD_STEPS},given=head",
    f"fisher_top:share=0.1,head_steps={HEAD_STEPS}", "fisher_top:share=0.1,per=layer", "fisher_top:share=0.1,per=parameter",
    "fisher_top:share=0.1,granularity=vector", "moved_top:share=0.1", "moved_top:share=0.1,by=gain",
    "fisher_top:count=998,within=(layer_norms+biases)", "moved_top:count=998,by=gain,within=(layer_norms+biases)",
    "random:count=998,within=(layer_norms+biases)", "random:count=998",
)  # fmt: skip
GLOBAL = f"global:share={GLOBAL_SHARE}"  # what the tables call a selection file, which is another one for each task
SHUFFLED = "shuffled:share=0.1"  # as many of each norm as information given the head chooses, drawn blindly
RELATED = {"mrpc": "stsb", "stsb": "mrpc"}  # tasks that share sentences
TRIALS = Path("benchmarks/layernorm_paper/trials")  # what `recommend` tries before it proposes
PARTS = ("measured", "methods", "subsets", "global", "everywhere", "beyond", "recommended")


def methods_of(part: str) -> tuple[str, ...]:
    return {"methods": (*METHODS, *PARTS_OF_NORMS), "subsets": SUBSETS, "everywhere": EVERYWHERE, "beyond": BEYOND}.get(
        part, ()
    )


def selection_methods(task: str, parts: list[str] | tuple[str, ...]) -> list[str]:
    """The global subset that was chosen without `task`, and the shuffled choice of `task`."""
    paths = {"global": selection_path(task, GLOBAL), "beyond": selection_path(task, SHUFFLED)}
    return [f"selection:file={path}" for part, path in paths.items() if part in parts]


def recommended_methods(task: str, parts: list[str] | tuple[str, ...]) -> list[str]:
    """What `recommend` proposed for `task`, once it was asked."""
    path = HERE / "recommended" / f"{task}.json"
    return [json.loads(path.read_text())["method"]] if "recommended" in parts and path.is_file() else []


def selection_path(task: str, what: str) -> Path:
    return SELECTIONS / f"{'without' if what == GLOBAL else 'shuffled'}-{task}.safetensors"
