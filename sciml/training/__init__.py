"""Training: operators fitted to data, and what they are worth afterwards.

Names load on first use (PEP 562), so that importing this package loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sciml.core.lazy import attach

if TYPE_CHECKING:
    from sciml.core.run.training_run import TrainingError as TrainingError
    from sciml.training.data import Files as Files
    from sciml.training.data import Fresh as Fresh
    from sciml.training.data import TensorData as TensorData
    from sciml.training.data import TrainingData as TrainingData
    from sciml.training.data import open_data as open_data
    from sciml.training.evaluation import Bracket as Bracket
    from sciml.training.evaluation import Evaluation as Evaluation
    from sciml.training.evaluation import MultigridTime as MultigridTime
    from sciml.training.evaluation import Polishing as Polishing
    from sciml.training.evaluation import ResolutionTransfer as ResolutionTransfer
    from sciml.training.evaluation import bracket as bracket
    from sciml.training.evaluation import evaluate as evaluate
    from sciml.training.evaluation import multigrid_time as multigrid_time
    from sciml.training.evaluation import polishing as polishing
    from sciml.training.evaluation import resolution_transfer as resolution_transfer
    from sciml.training.fitting import fit as fit
    from sciml.training.options import Adam as Adam
    from sciml.training.options import AdamW as AdamW
    from sciml.training.options import Constant as Constant
    from sciml.training.options import Cosine as Cosine
    from sciml.training.options import OneCycle as OneCycle
    from sciml.training.options import Steps as Steps
    from sciml.training.options import Training as Training

__getattr__, __dir__ = attach(__name__, __file__)
