"""The Recorder as a callback of the Trainer of Hugging Face.

    trainer = Trainer(model, ..., callbacks=[losslandscape.TransformersRecorder("run/")])
"""

from losslandscape.errors import InputError
from losslandscape.training.recorder import Recorder

try:
    from transformers import TrainerCallback
except ImportError:
    TrainerCallback = object  # the class can be imported, and says what is missing when it is used


class TransformersRecorder(TrainerCallback):
    """Records the weights of a Trainer's model; arguments: those of Recorder, but the network.

    A training that goes on from a checkpoint goes on in the folder.
    """

    def __init__(self, folder, every=1, unit="epoch", dtype=None):
        if TrainerCallback is object:
            raise InputError(
                "expected transformers for a TransformersRecorder; pip install transformers")
        self._arguments = {"folder": folder, "every": every, "unit": unit, "dtype": dtype}
        self._recorder = None

    def on_train_begin(self, args, state, control, model=None, **_):
        if not state.is_world_process_zero:
            return
        self._recorder = Recorder(model, **self._arguments, resume=state.global_step > 0)

    def on_epoch_end(self, args, state, control, **_):
        if self._recorder and self._recorder.unit == "epoch":
            self._recorder.step(epoch=round(state.epoch))

    def on_step_end(self, args, state, control, **_):
        if self._recorder and self._recorder.unit == "step":
            self._recorder.step(step=state.global_step)

    def on_train_end(self, args, state, control, **_):
        if self._recorder:
            self._recorder.close()
