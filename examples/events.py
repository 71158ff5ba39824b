"""A loop of one's own around a fit: it writes a CSV of the validations, and stops when two in a row have not been better.

The same loop reports to a search (`trial.report(event.scores["accuracy"], event.step)`, and `steps.stop("pruned")` where
`trial.should_prune()`) or to a tracker.
"""

import csv
import sys

import trimtab

n_rows = int(sys.argv[1]) if sys.argv[1:] else None  # python examples/events.py [TRAINING_ROWS]
with (
    trimtab.steps("minilm", "helpdesk", eval_steps=20, train_limit=n_rows) as steps,
    open("validations.csv", "w") as file,
):
    for event in steps:
        if isinstance(event, trimtab.Validation):
            csv.writer(file).writerow([event.step, event.seconds, event.loss, event.scores["accuracy"]])
            if event.since_best == 2:
                steps.stop("two validations were no better")
print(steps.run.stopped, steps.run.details["best_step"], steps.run.scores)
