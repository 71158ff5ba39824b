"""Losses by row, against torch's own means and by hand."""

import pytest
import torch
import torch.nn.functional as F
from small import make_task

from trimtab.errors import InputError
from trimtab.tasks.losses import TaskLoss, label_tensor, task_loss

LOGITS = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))


def test_plain_losses_are_torchs_own():
    labels = torch.tensor([0, 1, 2, 2, 1, 0])
    torch.testing.assert_close(TaskLoss("single_label")(LOGITS, labels), F.cross_entropy(LOGITS, labels))
    many = F.one_hot(labels, 3).float()
    expected = F.binary_cross_entropy_with_logits(LOGITS, many)
    torch.testing.assert_close(TaskLoss("multi_label")(LOGITS, many), expected)
    values = LOGITS[:, :1]
    torch.testing.assert_close(TaskLoss("regression")(values, labels.float()), F.mse_loss(values[:, 0], labels.float()))


def test_smoothing_is_torchs_own():
    labels = torch.tensor([0, 1, 2, 2, 1, 0])
    found = TaskLoss("single_label", label_smoothing=0.2)(LOGITS, labels)
    torch.testing.assert_close(found, F.cross_entropy(LOGITS, labels, label_smoothing=0.2))


def test_balanced_weights_give_each_class_the_same_say():
    task = make_task()
    loss = task_loss(task, "balanced")
    labels = label_tensor(task, task.train)
    says = [loss.class_weights[labels[labels == c]].sum() for c in range(3)]
    torch.testing.assert_close(torch.stack(says), torch.full((3,), len(labels) / 3))


def test_balanced_multi_label_weighs_presence_against_absence():
    task = make_task("multi_label")
    labels = label_tensor(task, task.train)
    loss = task_loss(task, "balanced")
    torch.testing.assert_close(loss.class_weights * labels.sum(0), len(labels) - labels.sum(0))


def test_label_tensors():
    assert label_tensor(make_task(), make_task().train).dtype == torch.int64
    many = make_task("multi_label")
    assert label_tensor(many, many.train).sum(1).tolist() == [len(row) for row in many.train.labels]
    assert label_tensor(make_task("regression"), make_task("regression").train).dtype == torch.float32


def test_regression_has_no_class_weights():
    with pytest.raises(InputError, match="needs? classes|regression"):
        task_loss(make_task("regression"), "balanced")
