"""Where models registered in MLflow find their loader; the code is in `integrations/mlflow/registry.py`."""

from poisonwatch.integrations.mlflow.registry import _load_pyfunc as _load_pyfunc
