"""The names of the front door; each is imported when it is first used."""

from .util.errors import UserError as UserError
from .verbs.accept import accept as accept
from .verbs.auto import auto as auto
from .verbs.benchmark import benchmark as benchmark
from .verbs.compare import compare as compare
from .verbs.convert import convert as convert
from .verbs.crossval import crossval as crossval
from .verbs.distil import distil as distil
from .verbs.doctor import doctor as doctor
from .verbs.efficiency import efficiency as efficiency
from .verbs.ensemble import ensemble as ensemble
from .verbs.evaluate import evaluate as evaluate
from .verbs.export import export as export
from .verbs.install import install as install
from .verbs.next import next as next
from .verbs.options import Launcher as Launcher
from .verbs.package import package as package
from .verbs.plan import plan as plan
from .verbs.predict import predict as predict
from .verbs.preprocess import preprocess as preprocess
from .verbs.pseudo_dataset import pseudo_dataset as pseudo_dataset
from .verbs.pseudo_label import pseudo_label as pseudo_label
from .verbs.report import report as report
from .verbs.run import run as run
from .verbs.select import select as select
from .verbs.split import split as split
from .verbs.status import status as status
from .verbs.train import train as train
from .verbs.tune import tune as tune

__version__: str
