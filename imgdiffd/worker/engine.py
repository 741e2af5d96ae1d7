"""What a worker process runs: a bundle's models, resident on one torch device, and the stages that use them."""

import gc
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from imgdiffd import stages
from imgdiffd.bundles.bundle import load_bundle
from imgdiffd.errors import SettingsError
from imgdiffd.fleet.wire import Report, Start
from imgdiffd.kernels import attention
from imgdiffd.method.messages import StageInput, StageOutput
from imgdiffd.method.profile import Profile, load_profile
from imgdiffd.models.loading import load_models
from imgdiffd.pipeline import Role, Stage
from imgdiffd.stages.images import Images
from imgdiffd.worker.graph_checks import graph_steps
from imgdiffd.worker.warm_up import warm_up

ENCODERS = 4  # threads at most that make PNGs beside the next batch: 0.24 s of a core for an image of 1,024²


def same_on_every_run() -> None:
    """Keeps cuDNN to algorithms that give the same bits: one that is chosen by timing would differ from run to run."""
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


class StageEngine:
    """Loads what `start` names, telling `say` what is being loaded. Raises BundleError, or what the loaders raise."""

    def __init__(self, start: Start, say: Callable[[str], None]) -> None:
        if start.threads:
            torch.set_num_threads(start.threads)
        same_on_every_run()
        device = torch.device(start.device)
        if device.type == "cuda":
            torch.cuda.set_device(device)  # for every call that names none
        self._notes: list[str] = []
        try:
            attention.choose(start.attention, device, self._note)
        except RuntimeError as error:
            raise SettingsError(str(error), hint="see `imgdiffd settings` for what each choice means") from error
        bundle = load_bundle(start.bundle)
        self._models = load_models(
            bundle,
            [Role(role) for role in start.roles],
            device,
            say,
            compile=start.compile,
            tune=start.tune,
            note=self._note,
        )
        if start.compile:
            with torch.inference_mode():
                profile = load_profile(bundle.profile)
                warm_up(self._models, profile, device, say, self._note)
                if device.type == "cuda":
                    graph_steps(self._models, profile, device, say, self._note)
        self._device = device
        self._resident_bytes, self._repeated = 0, self._models.repeated_decodes()
        encoder = ThreadPoolExecutor(min(ENCODERS, start.threads or ENCODERS), "png")
        self._images = Images(Path(start.images), device, encoder=encoder)

    @property
    def models(self) -> dict[str, str]:
        """Role to source and revision."""
        return dict(self._models.sources)

    @property
    def weights_bytes(self) -> dict[str, int]:
        """The device memory that each role's weights take."""
        return dict(self._models.weights_bytes)

    def _note(self, text: str) -> None:
        self._notes.append(text.partition("\n")[0])  # torch's errors go on for pages

    def report(self) -> Report:
        """Peak memory, repeated decodes and notes since the last call."""
        repeated = self._models.repeated_decodes()
        counters = {"decodes_repeated": repeated - self._repeated} if repeated > self._repeated else {}
        self._repeated = repeated
        notes = tuple(self._notes)
        self._notes.clear()
        return Report(self._peak_bytes(), counters, notes)

    def _peak_bytes(self) -> int:
        if self._device.type != "cuda":
            return 0
        return max(0, torch.cuda.max_memory_allocated(self._device) - self._resident_bytes)

    def run(self, stage: Stage, profile: Profile, inputs: Sequence[StageInput]) -> tuple[StageOutput, ...]:
        """One output for each input, in their order; `take_writes` has their images. Raises what the stage raises."""
        self._images.take_unwritten()  # of a batch that failed
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._resident_bytes = torch.cuda.memory_allocated(self._device)
        with torch.inference_mode():
            return stages.run(stage, self._models, profile, inputs, self._images)

    def take_writes(self) -> Callable[[], None]:
        """What makes the images of the last run durable, in any thread. Raises OSError."""
        return self._images.take_unwritten()

    def free_memory(self) -> None:
        """Forget recent images and return the memory that torch keeps for reuse."""
        self._images.forget()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
