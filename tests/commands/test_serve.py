"""What is wrong with a server's arguments is told before anything is loaded."""

import importlib.util
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name what to serve"),
        (["reviews"], "'reviews' is no NAME=RUN"),
        (["reviews="], "'reviews=' is no NAME=RUN"),
        (["a/b=runs"], "cannot be the name of a task"),
        (["..=runs"], "cannot be the name of a task"),
        (["a=none"], "no delta in none"),
        (["a=x", "a=y"], "two tasks are called 'a'"),
        (["--runs", "none"], "--runs none: there is no such folder"),
        (["--runs", ".", "--manage"], "--manage lets others change tasks, which needs a token"),
        (["--runs", ".", "--token-file", "none"], "--token-file none cannot be read"),
        (["--runs", ".", "--compute", "float23"], "did you mean float32"),
        (["--runs", ".", "--most-texts", "0"], "--most-texts 0: more than 0"),
        (["--runs", ".", "--most-bytes", "0"], "--most-bytes 0: at least 1"),
    ],
)
def test_what_is_wrong_is_told(
    command: Command, arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRIMTAB_TOKEN", raising=False)
    code, _, err = command("serve", "minilm", *arguments)
    assert code == 2
    assert said in err


def test_a_token_that_can_be_guessed_is_refused(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIMTAB_TOKEN", "hunter2")
    code, _, err = command("serve", "minilm", "--runs", tmp_path)
    assert code == 2
    assert "the token must be at least 16" in err
    assert "hunter2" not in err


def test_a_port_in_use_is_told(command: Command, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = command("serve", "minilm", "--runs", tmp_path, "--port", port)
    assert code == 2
    assert f"cannot listen on 127.0.0.1 port {port}" in err
    assert command("serve", "minilm", "--runs", tmp_path, "--port", 99_999)[0] == 2


def test_a_missing_extra_is_told(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    own = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "uvicorn" else own(name, *rest)
    )
    code, _, err = command("serve", "minilm", "a=b")
    assert code == 2
    assert "needs uvicorn: pip install 'trimtab[serve]'" in err
