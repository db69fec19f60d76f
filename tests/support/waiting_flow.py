"""A flow that ends when somebody ends it: entrypoint of deployments in tests."""

import time

from prefect import flow


@flow(persist_result=False)
def wait_for_ever() -> None:
    time.sleep(3600)
