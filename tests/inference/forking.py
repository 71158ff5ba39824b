"""Predicts with a run by several threads, and then in a process that is forked from this one; prints whether both agree."""

import multiprocessing
import sys

import torch

from trimtab.inference.predictor import Predictor, predict

MANY = ["the red cat runs", "a blue dog sleeps"] * 100


def compare(run: str) -> str:
    """ "same", "differs", or "hangs" where the forked process has no answer after a minute."""
    predictor = Predictor(run)
    here = predict(predictor, MANY)
    a = torch.rand(600, 600)
    assert (a @ a).shape == (600, 600)  # a product that the threads share, so that they are there
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    worker = context.Process(target=lambda: queue.put((predict(predictor, MANY), float((a @ a).sum()))))
    worker.start()
    worker.join(60)
    if worker.is_alive():
        worker.kill()
        return "hangs"
    found, _ = queue.get()
    return "same" if [one.label for one in found] == [one.label for one in here] else "differs"


if __name__ == "__main__":
    print(compare(sys.argv[1]))
