"""Where models registered in MLflow find their loader: it stands in each of them.

The code is in `integrations/mlflow/pyfunc.py`.
"""

from poisonwatch.integrations.mlflow.pyfunc import _load_pyfunc

# Under this name, and at this address, MLflow looks for it.
__all__ = ["_load_pyfunc"]
