"""Where models registered in MLflow find their loader: it stands in each of them.

The code is in `integrations/mlflow/registry.py`.
"""

from poisonwatch.integrations.mlflow.registry import _load_pyfunc

__all__ = ["_load_pyfunc"]
