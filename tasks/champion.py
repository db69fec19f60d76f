"""Where models registered in MLflow find their loader; the code is in
`integrations/mlflow/registry.py`.
"""
