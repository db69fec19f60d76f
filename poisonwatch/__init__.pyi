from poisonwatch.config import AuditConfig as AuditConfig
from poisonwatch.config_file import load_config as load_config
from poisonwatch.errors import PoisonwatchError as PoisonwatchError
from poisonwatch.flows.notebook.audit import audit as audit
from poisonwatch.flows.notebook.check import check as check
from poisonwatch.flows.notebook.drill import drill as drill
from poisonwatch.gate import gate as gate
from poisonwatch.sentinels.sentinel import Sentinel as Sentinel
from poisonwatch.sentinels.sentinel import load_sentinels as load_sentinels

__version__: str
__all__: list[str]
