"""Runs to the hub and from it, through huggingface_hub, against a hub on this machine."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_stand_in import TOKEN, StandIn, stand_in
from huggingface_hub import HfApi, ModelCard, constants
from small import ANIMALS, first_animal, make_encoder_folder, make_task, sentences

import trimtab
from trimtab import Delta, InputError
from trimtab.cache import cache_folder
from trimtab.commands.serve import _named, _on_this_disk
from trimtab.exports.hub import hub_name, is_hub_name
from trimtab.exports.pull import pull
from trimtab.exports.push import _base_on_hub, push
from trimtab.results.model_card import hub_card
from trimtab.serving.settings import is_task_name

BASE = "someone/base"
TEXTS = sentences(40, seed=5)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A hub with an encoder in it, which the process takes for the one that there is."""
    with stand_in() as found:
        monkeypatch.setattr(constants, "ENDPOINT", found.url)
        template = found.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        found.made(BASE)
        yield found


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a file in a folder, with an encoder in another."""
    folder = tmp_path_factory.mktemp("private-place")
    encoder = make_encoder_folder("bert", folder / "encoder")
    rows = [f"{text},{ANIMALS[first_animal(text)]}" for text in TEXTS]
    (folder / "reviews.csv").write_text("\n".join(["text,label", *rows]))
    task = trimtab.read(folder / "reviews.csv")
    trimtab.fit(str(encoder), task, epochs=1, head="linear", out=folder / "run")
    return folder / "run"


def test_a_run_goes_to_the_hub_and_comes_back_the_same(hub, run_folder, tmp_path):
    pushed = push(run_folder, "me/animals", base_name=BASE)
    _, (commit, files) = hub.repositories["me/animals"].commits
    assert pushed == (f"{hub.url}/me/animals", commit)
    assert files.keys() == {".gitattributes", "README.md", "delta.safetensors", "delta.json"}
    folder = pull("me/animals", tmp_path / "back")
    names = ["README.md", "delta.json", "delta.safetensors", "origin.json"]
    assert sorted(path.name for path in folder.iterdir()) == names
    back, sent = Delta.load(folder), Delta.load(run_folder)
    origin = {"repository": "me/animals", "revision": commit, "sha256": back.sha256}
    assert json.loads((folder / "origin.json").read_text()) == origin
    assert {name: value.tolist() for name, value in back.values.items()} == {
        name: value.tolist() for name, value in sent.values.items()
    }
    base = hub.repositories[BASE].commits[-1][0]
    assert (back.base["place"], back.base["revision"], back.base["sha256"]) == (BASE, base, sent.base["sha256"])
    encoder = str(run_folder.parent / "encoder")
    assert trimtab.predict(folder, TEXTS, encoder) == trimtab.predict(run_folder, TEXTS)


def test_nothing_of_the_maker_is_sent_but_the_names_of_the_classes(hub, run_folder):
    push(run_folder, "me/animals", base_name=BASE)
    for name, content in hub.repositories["me/animals"].commits[-1][1].items():
        assert str(run_folder.parent).encode() not in content, name
        assert not any(text.encode() in content for text in TEXTS), name
    # That of the run is as it was.
    assert Delta.load(run_folder).task["source"] == str(run_folder.parent / "reviews.csv")


def test_the_card_says_what_the_hub_reads(hub, run_folder):
    push(run_folder, "me/animals", base_name=BASE)
    text = hub.repositories["me/animals"].commits[-1][1]["README.md"].decode()
    data = ModelCard(text).data
    assert (data.base_model, data.base_model_relation, data.library_name) == (BASE, "adapter", "trimtab")
    assert data.pipeline_tag == "text-classification"
    assert data.metrics == ["accuracy"]
    record = json.loads((run_folder / "scores.json").read_text())
    told = {each.metric_type: each.metric_value for each in data.eval_results or ()}
    assert told["accuracy"] == round(record["scores"]["accuracy"], 6)
    assert told["matthews_correlation"] == round(record["scores"]["matthews"], 6)
    assert "trimtab predict me/animals" in text
    assert all(repr(name) in text for name in ANIMALS)


def test_a_delta_without_a_record_has_a_card_too(hub, run_folder, tmp_path):
    Delta.load(run_folder).save(tmp_path / "bare")
    push(tmp_path / "bare", "me/bare", base_name=BASE)
    text = hub.repositories["me/bare"].commits[-1][1]["README.md"].decode()
    assert "| accuracy |  | " in text
    assert ModelCard(text).data.eval_results


def test_a_second_push_is_a_second_commit_and_a_revision_is_the_first(hub, run_folder, tmp_path):
    first = push(run_folder, "me/animals", base_name=BASE)
    shutil.copytree(run_folder, tmp_path / "other")
    (tmp_path / "other" / "scores.json").unlink()
    second = push(tmp_path / "other", "me/animals", base_name=BASE)
    assert len(hub.repositories["me/animals"].commits) == 3
    pull(f"me/animals@{first.commit}", tmp_path / "first")
    pull("me/animals", tmp_path / "second")
    found = [json.loads((tmp_path / name / "origin.json").read_text())["revision"] for name in ("first", "second")]
    assert found == [first.commit, second.commit]


@pytest.mark.parametrize(
    ("repository", "said"),
    [
        ("animals", "'animals' is no run on the hub: OWNER/NAME"),
        ("me/../animals", "is no run on the hub"),
        ("me/animals@v1", "leave out @v1"),
        ("others/animals", r"your token may not do that for others \(403\)"),
        ("me/a--b", r"Cannot have -- or \.\. in repo_id"),
        ("me/model", r"holds something that is no run of trimtab \(model.safetensors\)"),
    ],
)
def test_a_place_that_is_not_ours_is_refused(hub, run_folder, repository, said):
    hub.made("me/model", {"model.safetensors": b"somebody's", "README.md": b"their card"})
    with pytest.raises(InputError, match=said):
        push(run_folder, repository, base_name=BASE)
    assert hub.repositories["me/model"].commits[-1][1]["README.md"] == b"their card"


def test_a_public_repository_does_not_get_what_is_to_be_private(hub, run_folder):
    hub.made("me/animals")
    with pytest.raises(InputError, match="there already and public, and --private was given"):
        push(run_folder, "me/animals", private=True, base_name=BASE)
    assert len(hub.repositories["me/animals"].commits) == 1
    push(run_folder, "me/secret", private=True, base_name=BASE)
    assert hub.repositories["me/secret"].private


def test_an_encoder_in_a_folder_needs_a_name_that_others_have(hub, run_folder):
    with pytest.raises(InputError, match=r"lies in the folder .*encoder, which nobody else has: --base-name"):
        push(run_folder, "me/animals")
    with pytest.raises(InputError, match=r"--base-name no/base: there is no model no/base on the hub"):
        push(run_folder, "me/animals", base_name="no/base")
    assert "me/animals" not in hub.repositories
    embedded = {"name": "minilm", "place": "minilm", "revision": None}
    assert _base_on_hub(embedded, None, HfApi()) == ("sentence-transformers/all-MiniLM-L6-v2", None)


def test_who_is_not_known_is_told_to_log_in(hub, run_folder, tmp_path, monkeypatch):
    push(run_folder, "me/secret", private=True, base_name=BASE)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(
        InputError, match=r"cannot push .* does not know who you are \(401\): log in with `hf auth login`"
    ):
        push(run_folder, "me/animals", base_name=BASE)
    with pytest.raises(InputError, match=r"no model me/secret on the hub, or it is private and you may not read it"):
        pull("me/secret", tmp_path / "out")
    with pytest.raises(InputError, match="has no revision 'v7'"):
        pull(f"{BASE}@v7", tmp_path / "out")
    hub.refuses = 500
    with pytest.raises(InputError, match="the hub answered 500"):
        pull(BASE, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_no_run_or_too_large_is_not_fetched(hub, run_folder, tmp_path):
    push(run_folder, "me/animals", base_name=BASE)
    hub.requests.clear()
    with pytest.raises(InputError, match=f"{BASE} is no run of trimtab: it has no delta.safetensors"):
        pull(BASE, tmp_path / "out")
    with pytest.raises(InputError, match=r"delta.safetensors of me/animals takes [0-9,]+ bytes, and at most 100 are"):
        pull("me/animals", tmp_path / "out", most_bytes=100)
    hub.sizes["README.md"] = 1 << 30
    with pytest.raises(InputError, match="README.md of me/animals takes 1,073,741,824 bytes"):
        pull("me/animals", tmp_path / "out")
    assert not any("resolve" in each for each in hub.requests)
    assert not (tmp_path / "out").exists()


def test_only_files_of_the_format_are_fetched_and_they_are_checked(hub, run_folder, tmp_path):
    push(run_folder, "me/animals", base_name=BASE)
    repository = hub.repositories["me/animals"]
    repository.commit(
        {"model.bin": b"pickled", "../evil": b"outside", "code.py": b"import os", "notes/delta.json": b"{}"}
    )
    hub.requests.clear()
    folder = pull("me/animals", tmp_path / "out")
    asked = {each.rpartition("/")[2] for each in hub.requests if "resolve" in each}
    assert asked == {"README.md", "delta.safetensors", "delta.json"}
    assert len([*folder.iterdir()]) == 4
    whole = repository.commits[-1][1]["delta.safetensors"]
    repository.commit({"delta.safetensors": whole[:-1] + bytes([whole[-1] ^ 1])})
    with pytest.raises(InputError, match="is damaged"):
        pull("me/animals", tmp_path / "damaged")
    repository.commit({"delta.safetensors": b"\x80\x04pickled"})
    with pytest.raises(InputError, match="is damaged or not a delta"):
        pull("me/animals", tmp_path / "damaged")
    assert not (tmp_path / "damaged").exists()
    with pytest.raises(InputError, match="exists: choose another --out"):
        pull("me/animals", tmp_path / "out")


def test_predict_takes_a_name_and_goes_on_without_a_network(hub, run_folder, tmp_path, command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commit = push(run_folder, "me/animals", base_name=BASE).commit
    asked = ("predict", "me/animals", "--text", TEXTS[0], "--encoder", run_folder.parent / "encoder", "--json")
    code, out, err = command(*asked)
    assert code == 0, err
    assert f"me/animals is commit {commit[:12]} of the hub" in err
    expected = trimtab.predict(run_folder, TEXTS[:1])[0].label
    assert json.loads(out.splitlines()[-1])["answers"][0]["label"] == expected
    # The second time nothing is fetched.
    hub.requests.clear()
    assert command(*asked)[0] == 0
    assert not any("resolve" in each for each in hub.requests)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    code, _, err = command(*asked)
    assert code == 0, err
    assert "cannot be reached" in err
    assert f"taken is commit {commit[:12]}, which was pulled before" in err
    assert command("predict", f"me/animals@{commit}", *asked[2:])[0] == 0
    code, _, err = command("predict", "me/never", *asked[2:])
    assert code == 2
    assert "there is no folder me/never here, and it cannot be had from the hub: the hub cannot be reached" in err


def test_a_folder_goes_before_the_hub(hub, tmp_path, command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    code, _, err = command("predict", "runs/reviews", "--text", "a cat")
    assert code == 2
    assert "no delta in runs/reviews" in err
    assert hub.requests == []
    assert is_hub_name("me/animals@v1.0")
    others = ("runs/reviews", "animals", "./me/animals", "/me/animals", "a/b/c", "~/runs", "me/..")
    assert not any(map(is_hub_name, others))
    assert hub_name("me/animals@refs/pr/1") == ("me/animals", "refs/pr/1")


def test_serve_pulls_what_is_named_before_it_listens(hub, run_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    commit = push(run_folder, "me/animals", base_name=BASE).commit
    assert not is_task_name("me/animals")  # so that no request names a run of the hub
    folders = _on_this_disk(_named(["a=me/animals", f"b={run_folder}"]))
    assert folders == {"a": cache_folder() / "pulled" / "me--animals" / commit, "b": run_folder}
    assert f"task a: me/animals is commit {commit[:12]}" in capsys.readouterr().err
    pool = trimtab.Pool(str(run_folder.parent / "encoder"), folders)
    assert pool.predict([("a", TEXTS[0])])[0].label == pool.predict([("b", TEXTS[0])])[0].label


def test_the_commands_tell_where_it_went(hub, run_folder, tmp_path, command):
    code, out, err = command("push", run_folder, "me/animals", "--base-name", BASE, "--private", "--json")
    assert code == 0, err
    pushed = json.loads(out.splitlines()[-1])
    assert pushed["url"] in err
    code, out, err = command("pull", "me/animals", "--out", tmp_path / "back", "--json")
    assert code == 0, err
    told = json.loads(out.splitlines()[-1])
    assert told["revision"] == pushed["commit"]
    assert Delta.load(told["out"]).sha256 == told["sha256"]


@pytest.mark.slow
def test_another_process_finds_the_hub_by_hf_endpoint(hub, run_folder, tmp_path):
    push(run_folder, "me/animals", base_name=BASE)
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "trimtab", "pull", "me/animals", "--out", tmp_path / "back"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "back" / "delta.safetensors").is_file()


@pytest.mark.parametrize(("kind", "pairs"), [("multi_label", False), ("regression", True)])
def test_cards_of_other_kinds_of_tasks(encoder, kind, pairs):
    task = make_task(kind, 40, 24, pairs=pairs)
    run = trimtab.fit(encoder, task, epochs=1, head="linear", pairs="together")
    text = hub_card(run.details, run.delta, "me/it", "someone/base")
    data = ModelCard(text).data
    told = {each.metric_name: each.metric_value for each in data.eval_results or ()}
    known = {name: value for name, value in run.scores.items() if name != "loss" and not math.isnan(value)}
    assert told == {name: round(value, 6) for name, value in known.items()}
    assert data.metrics == [{"multi_label": "f1_macro", "regression": "pearsonr"}[kind]]
    assert ("--text-pair" in text) == pairs
    assert ("a number" in text) == (kind == "regression")
