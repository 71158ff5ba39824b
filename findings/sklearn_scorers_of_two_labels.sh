#!/bin/sh
# scikit-learn's ranking scorers fail for MLPClassifier on rows of two labels, and for no other number of labels.
#
# A scorer asks type_of_target(estimator.classes_) what kind of task it is. Of a matrix of two labels MLPClassifier has classes_ =
# [0, 1], which look like the two classes of a binary task: one column of its probabilities is taken, and the metric, which gets a
# matrix and a column, raises. With three labels classes_ = [0, 1, 2] and all columns are taken. Estimators whose classes_ is a
# list with one array for each label (forests, KNeighborsClassifier) are not affected; whoever writes a multi-label estimator should
# do as these. Near: scikit-learn#26817 and #27002, which mended the same place for lists of arrays.
# Seen with scikit-learn 1.9.1, numpy 2.4.6, Python 3.11, Linux. Fails when the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q scikit-learn==1.9.1 numpy==2.4.6
cd "$folder"
OMP_NUM_THREADS=1 "$folder/env/bin/python" - <<'PYTHON'
import warnings

import numpy as np
import sklearn
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import get_scorer, roc_auc_score
from sklearn.neural_network import MLPClassifier

warnings.simplefilter("ignore")
rows = np.random.default_rng(0).normal(size=(200, 5))
labels = (rows > 0).astype(int)
print("scikit-learn", sklearn.__version__, "numpy", np.__version__)


def scored(estimator, count, scorer):
    fitted = estimator.fit(rows, labels[:, :count])
    try:
        return get_scorer(scorer)(fitted, rows, labels[:, :count])
    except ValueError as error:
        return f"ValueError: {str(error).splitlines()[0]}"


found = {}
for scorer in ("roc_auc", "average_precision"):
    for count in (2, 3):
        for estimator in (MLPClassifier(max_iter=50, random_state=0), RandomForestClassifier(20, random_state=0)):
            name = type(estimator).__name__
            found[scorer, count, name] = scored(estimator, count, scorer)
            print(f"{scorer}, {count} labels, {name}: {found[scorer, count, name]}")
fitted = MLPClassifier(max_iter=50, random_state=0).fit(rows, labels[:, :2])
print("the metric itself, two labels:", roc_auc_score(labels[:, :2], fitted.predict_proba(rows)))
fails = {key for key, value in found.items() if isinstance(value, str)}
assert fails == {("roc_auc", 2, "MLPClassifier"), ("average_precision", 2, "MLPClassifier")}, "the behaviour has changed"
PYTHON
