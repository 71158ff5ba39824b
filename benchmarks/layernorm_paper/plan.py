"""What the study of the LayerNorm paper compares: its tasks, its methods by part, and where its files lie."""

import json
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
CELLS = Path("benchmarks/layernorm_paper/cells")
SELECTIONS = Path("benchmarks/layernorm_paper/selections")  # relative: the path is a part of the method's name
LIMITS = {"mrpc": None, "cola": None, "rte": None, "sst2": 8000, "ag_news_10k": 4000, "stsb": None}  # training rows
MAX_LENGTH = 256
SHARES = (0.05, 0.1, 0.2, 0.5)
GLOBAL_SHARE = 0.2
COUNT = 9984  # parameters of all LayerNorms of minilm
EXAMPLES = 1024
HEAD_STEPS = 100  # of the variant whose head is trained before measuring

RANK_ONE = "lora:rank=1"  # 9,216 parameters: less than all LayerNorms have

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
# LayerNorm's count among its elements and the biases: those that go farthest in a trial, and a random subset.
VECTORS = tuple(f"{chooser}:count={COUNT},within=(layer_norms+biases)" for chooser in ("moved_top", "random"))
BEYOND = (  # other ways to choose a tenth of LayerNorm, or as many elements (998) among biases too
    "fisher_top:share=0.1,given=head", f"fisher_top:share=0.1,head_steps={HEAD_STEPS},given=head",
    f"fisher_top:share=0.1,head_steps={HEAD_STEPS}", "fisher_top:share=0.1,per=layer", "fisher_top:share=0.1,per=parameter",
    "fisher_top:share=0.1,granularity=vector", "moved_top:share=0.1", "moved_top:share=0.1,by=gain",
    "fisher_top:count=998,within=(layer_norms+biases)", "moved_top:count=998,by=gain,within=(layer_norms+biases)",
    "moved_top:share=0.1,by=gain,per=parameter",
    "random:count=998,within=(layer_norms+biases)", "random:count=998",
    "random:count=998,within=layer_norms:what=weight", "random:count=998,within=layer_norms:what=bias",
)  # fmt: skip
# Fitted with a version that had these choices, which never won (docs/findings.md). They stand in the tables, no more.
RETIRED = ("given=head", "granularity=", "per=", "by=gain")
# What the tables call a selection file, which is another one for each task.
GLOBAL = f"global:share={GLOBAL_SHARE}"
SHUFFLED = "shuffled:share=0.1"  # as many of each norm as information given the head chooses, a random subset of each
LOWEST = "lowest:share=0.1"  # the tenth of LayerNorm with the least information: if the most is bad, is the least good?
FILES = {"global": (GLOBAL,), "beyond": (SHUFFLED, LOWEST)}  # by part
NAMES = {
    "global": "without",
    "shuffled": "shuffled",
    "lowest": "lowest",
}  # of the files: without this task's information
# Two results, tried again with seeds that nobody had looked at when they were found: is a random subset better than the paper's
# choice, and is what moved farthest better than both?
FRESH = ("fisher_top:share=0.1", "random:share=0.1,within=layer_norms")
CONFIRMED = (*FRESH, "moved_top:share=0.1")
SEEDS = {"fresh": tuple(range(3, 9)), "confirmed": tuple(range(3, 6))}  # of the parts that bring their own
RELATED = {"mrpc": "stsb", "stsb": "mrpc"}  # tasks that share sentences
TRIALS = Path("benchmarks/layernorm_paper/trials")  # what `recommend` tries before it proposes
PARTS = (
    "measured", "methods", "subsets", "global", "everywhere", "recommended", "beyond", "chosen", "fresh", "confirmed",
    "vectors",
)  # fmt: skip


def methods_of(part: str) -> tuple[str, ...]:
    """The methods that `part` compares on every task alike."""
    return {
        "methods": (*METHODS, *PARTS_OF_NORMS), "subsets": SUBSETS, "everywhere": EVERYWHERE, "beyond": BEYOND,
        "fresh": FRESH, "confirmed": CONFIRMED, "vectors": VECTORS,
    }.get(part, ())  # fmt: skip


def seeds_of(part: str, seeds: Sequence[int]) -> Sequence[int]:
    """`seeds`, or those that `part` brings itself."""
    return SEEDS.get(part, seeds)


def runs(method: str) -> bool:
    """Whether today's trimtab can fit the method; the cells of others are of earlier versions."""
    return not any(option in method for option in RETIRED)


def named_methods(part: str, task: str) -> list[str]:
    """The methods that `part` compares on `task` alone: selections made for it, and what `recommend` proposed once asked."""
    if part == "recommended":
        path = HERE / "recommended" / f"{task}.json"
        return [json.loads(path.read_text())["method"]] if path.is_file() else []
    return [selection_method(task, what) for what in FILES.get(part, ()) if selection_path(task, what).is_file()]


def selection_path(task: str, what: str) -> Path:
    """Where the selection for `task` lies that tables call `what`."""
    return SELECTIONS / f"{NAMES[what.partition(':')[0]]}-{task}.safetensors"


def selection_method(task: str, what: str) -> str:
    """The method that trains it, as its cells are labelled."""
    return f"selection:file={selection_path(task, what)}"
