"""What is said about memory before training, against what tensors there are."""

import numpy as np
import pytest
import torch
from small import make_task

from trimtab.changes.methods import Full, Head, LastLayers, LayerNorms
from trimtab.changes.top import Random
from trimtab.errors import InputError
from trimtab.results.recipe import Settings
from trimtab.training import memory_estimate as module
from trimtab.training.fit import fit
from trimtab.training.set_up import set_up

OWN = {"compute": "float32", "head": "default", "head_start": "random"}


def bench_of(encoder, method, **settings):
    return set_up(encoder, make_task(n_train=40, n_validation=8), method, Settings(**(OWN | settings)))


def test_items_are_those_of_the_tensors(encoder):
    bench = bench_of(encoder, Full())
    elements = sum(p.numel() for p in bench.model.parameters())
    assert bench.memory.weights == 4 * elements
    assert bench.memory.gradients == 4 * bench.selection.count
    assert bench.memory.optimizer == 12 * bench.selection.count
    assert bench.memory.total >= bench.memory.process + 20 * elements


def test_freed_blocks_count_on_a_processor(encoder):
    memory = bench_of(encoder, LayerNorms()).memory
    assert memory.freed >= memory.activations > 0
    assert memory.total == memory.process + memory.own + memory.freed


def test_scores_of_attention_count_where_they_are_the_widest(encoder):
    """What is given back within a layer, for a head that keeps nothing of it: so many scores per token as heads and tokens."""
    bench = bench_of(encoder, Head(), dropout=0.0)
    before, _ = module._kept_per_token(bench.prepared, bench.train.inputs)
    bench.model.config.num_attention_heads = 100
    after, _ = module._kept_per_token(bench.prepared, bench.train.inputs)
    widest = max(m.out_features for m in bench.model.modules() if isinstance(m, torch.nn.Linear))
    scores = 100 * int(bench.train.lengths.max())
    assert after - before == pytest.approx(module._WORKING * 4 * (scores - widest))


def test_bfloat16_copies_count(encoder):
    plain = bench_of(encoder, LayerNorms()).memory.weights
    both = set_up(
        encoder, make_task(n_train=40, n_validation=8), LayerNorms(), Settings(**OWN | {"compute": "bfloat16"})
    )
    matrices = 3 * (4 * 32 * 32 + 2 * 32 * 48)  # elements in the linear maps of the small BERT's layers
    assert both.memory.weights == plain + 4 * matrices


def test_a_random_subset_counts_its_masters_and_positions(encoder):
    memory = bench_of(encoder, Random(count=100)).memory
    head = 3 * 32 + 3
    largest = 48 * 32
    assert 4 * (100 + head) < memory.gradients <= 4 * (100 + head + largest)
    assert memory.optimizer == 12 * (100 + head) + 12 * 100


def test_activations_grow_with_the_tokens_and_with_what_is_trained(encoder):
    small, large = (bench_of(encoder, LayerNorms(), tokens_per_batch=n).memory for n in (16, 160))
    assert large.activations > small.activations
    assert bench_of(encoder, Head(), tokens_per_batch=160).memory.activations < large.activations


def test_what_is_kept_is_what_autograd_keeps(encoder):
    """Against the bytes of every tensor saved in a step that is recorded by hand."""
    bench = bench_of(encoder, LayerNorms(), dropout=0.0, tokens_per_batch=10_000)
    longest = int(bench.train.lengths.max())
    rows = np.flatnonzero(bench.train.lengths == longest)[:2]
    sizes = {}
    bench.model.train()
    owned = {p.data_ptr() for p in bench.model.parameters()}

    def count(tensor):
        sizes.update(
            {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()}
            if tensor.data_ptr() not in owned
            else {}
        )
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
        module.batch_logits(bench.prepared, bench.train.inputs, rows)
    per_token, _ = module._kept_per_token(bench.prepared, bench.train.inputs)
    widest = max(m.out_features for m in bench.model.modules() if isinstance(m, torch.nn.Linear))
    assert per_token - module._WORKING * widest * 4 == pytest.approx(sum(sizes.values()) / (2 * longest), rel=0.2)


@pytest.mark.parametrize("method", [LastLayers(1), Head(), LayerNorms()], ids=repr)
@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
@pytest.mark.parametrize("epochs", [1, 2])
def test_mapped_is_what_the_files_of_the_prefix_take(method, compute, epochs, encoder, cache):
    bench = bench_of(encoder, method, compute=compute, epochs=epochs)
    for _ in bench.cache_prefixes():
        pass
    files = [path.stat().st_size - 8 for path in (cache / "prefix").glob("*")]  # less the seconds behind the states
    assert bench.memory.mapped == sum(files)
    assert bool(files) == (method != LayerNorms())
    assert bench_of(encoder, method, compute=compute, epochs=epochs, cache_gb=0.0).memory.mapped == 0


def test_as_many_tokens_as_fit(encoder, monkeypatch):
    assert bench_of(encoder, LayerNorms()).memory.tokens <= module.MOST_TOKENS["cpu"]
    monkeypatch.setattr(module, "free_bytes", lambda device: 30 << 20)
    tight = bench_of(encoder, LayerNorms(), dropout=0.0).memory.tokens
    monkeypatch.setattr(module, "free_bytes", lambda device: 1)
    assert bench_of(encoder, LayerNorms()).memory.tokens == 1
    assert tight > 1


def test_a_stated_number_of_tokens_is_kept(encoder):
    assert bench_of(encoder, LayerNorms(), tokens_per_batch=77).memory.tokens == 77


def test_a_run_tells_the_estimate_and_the_peak(encoder):
    run = fit(encoder, make_task(n_train=16, n_validation=8), LayerNorms(), epochs=1)
    assert run.details["memory_estimate"]["total"] > 0
    assert run.peak_memory_bytes >= run.details["memory_estimate"]["process"]
    assert "MB" in bench_of(encoder, LayerNorms()).memory.line()


def test_the_estimate_leaves_noise_and_gradients_alone(encoder):
    bench = bench_of(encoder, LayerNorms())
    before = torch.get_rng_state()
    module.estimated(bench.prepared, bench.optimizer, bench.train.inputs, 0, 0)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.grad is None for p in bench.model.parameters())


def test_a_bad_number_of_tokens_is_refused():
    with pytest.raises(InputError, match="tokens_per_batch=-1 must be at least 0"):
        Settings(tokens_per_batch=-1)
