"""Estimators for scikit-learn, which is an extra: a process that lacks it is told so when it asks for one of them."""

try:
    import sklearn as sklearn
except ImportError as error:
    raise ImportError(
        f"trimtab.Classifier and trimtab.Regressor need scikit-learn ({error}): pip install 'trimtab[sklearn]'"
    ) from error
