"""The Recorder as a callback of Lightning.

    trainer = lightning.Trainer(callbacks=[losslandscape.LightningRecorder("run/")])
"""

import sys

from losslandscape.errors import InputError
from losslandscape.training.recorder import Recorder

try:
    if "pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules:
        from pytorch_lightning import Callback
    else:
        from lightning.pytorch import Callback
except ImportError:
    Callback = object  # the class can be imported, and says what is missing when it is used


class LightningRecorder(Callback):
    """Records the weights of a LightningModule; arguments: those of Recorder, but the network.

    A fit that goes on from a checkpoint goes on in the folder.
    """

    def __init__(self, folder, every=1, unit="epoch", dtype=None):
        if Callback is object:
            raise InputError("expected Lightning for a LightningRecorder; pip install lightning")
        super().__init__()
        self._arguments = {"folder": folder, "every": every, "unit": unit, "dtype": dtype}
        self._recorder = None

    def on_train_start(self, trainer, pl_module):
        if not trainer.is_global_zero:
            return
        self._recorder = Recorder(pl_module, **self._arguments, resume=trainer.global_step > 0)

    def on_train_epoch_end(self, trainer, pl_module):
        if self._recorder and self._recorder.unit == "epoch":
            self._recorder.step(epoch=trainer.current_epoch + 1)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        # with accumulated gradients, not every batch is a step
        recorder = self._recorder
        if recorder and recorder.unit == "step" and trainer.global_step != recorder.number:
            recorder.step(step=trainer.global_step)

    def on_train_end(self, trainer, pl_module):
        if self._recorder:
            self._recorder.close()
