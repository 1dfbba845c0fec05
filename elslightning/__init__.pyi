"""The public face: every public name, and the room where it lives. The package reads this list when it is imported."""

from elslightning import cli as cli
from elslightning import data as data
from elslightning import diffusion as diffusion
from elslightning import machines as machines
from elslightning import measurement as measurement
from elslightning import networks as networks
from elslightning import report as report
from elslightning import runs as runs
from elslightning import system as system
from elslightning import testing as testing
from elslightning import training as training
from elslightning.cli.main import OutputDirectory as OutputDirectory
from elslightning.data.module import ImageDataModule as ImageDataModule
from elslightning.diffusion.denoiser import Denoiser as Denoiser
from elslightning.diffusion.sampling import Trajectory as Trajectory
from elslightning.diffusion.sampling import ddim as ddim
from elslightning.diffusion.sampling import sample as sample
from elslightning.diffusion.schedule import CosineSchedule as CosineSchedule
from elslightning.diffusion.schedule import Schedule as Schedule
from elslightning.diffusion.schedule import add_noise as add_noise
from elslightning.diffusion.schedules.edm import EDMSchedule as EDMSchedule
from elslightning.diffusion.schedules.flow import FlowSchedule as FlowSchedule
from elslightning.diffusion.schedules.linear import LinearSchedule as LinearSchedule
from elslightning.diffusion.schedules.sigmoid import SigmoidSchedule as SigmoidSchedule
from elslightning.diffusion.schedules.squared_cosine import SquaredCosineSchedule as SquaredCosineSchedule
from elslightning.machines.boundary_broken import BoundaryBrokenScoreMachine as BoundaryBrokenScoreMachine
from elslightning.machines.equivariant import EquivariantScoreMachine as EquivariantScoreMachine
from elslightning.machines.equivariant_local import EquivariantLocalScoreMachine as EquivariantLocalScoreMachine
from elslightning.machines.ideal import IdealScoreMachine as IdealScoreMachine
from elslightning.machines.local import LocalScoreMachine as LocalScoreMachine
from elslightning.machines.machine import ScoreMachine as ScoreMachine
from elslightning.machines.mean import MeanScoreMachine as MeanScoreMachine
from elslightning.machines.parameters import ParameterTable as ParameterTable
from elslightning.machines.patches import PatchMachine as PatchMachine
from elslightning.machines.registry import MACHINES as MACHINES
from elslightning.machines.scales import ScaleTable as ScaleTable
from elslightning.machines.soft_boundary_broken import SoftBoundaryBrokenScoreMachine as SoftBoundaryBrokenScoreMachine
from elslightning.machines.soft_equivariant_local import (
    SoftEquivariantLocalScoreMachine as SoftEquivariantLocalScoreMachine,
)
from elslightning.machines.soft_local import SoftLocalScoreMachine as SoftLocalScoreMachine
from elslightning.machines.wiener import WienerScoreMachine as WienerScoreMachine
from elslightning.measurement.attribution import attribute as attribute
from elslightning.measurement.attribution import attribute_process as attribute_process
from elslightning.measurement.calibration import calibrate as calibrate
from elslightning.measurement.comparison import compare as compare
from elslightning.measurement.comparison import median_interval as median_interval
from elslightning.measurement.consistency import consistency as consistency
from elslightning.measurement.gradients import gradient_field as gradient_field
from elslightning.measurement.measurement import Measurement as Measurement
from elslightning.measurement.mosaic import memorisation as memorisation
from elslightning.measurement.mosaic import mosaic as mosaic
from elslightning.measurement.settings import CalibrationSettings as CalibrationSettings
from elslightning.measurement.settings import ComparisonSettings as ComparisonSettings
from elslightning.networks.adapter import EpsDenoiser as EpsDenoiser
from elslightning.networks.adapter import NetworkDenoiser as NetworkDenoiser
from elslightning.networks.resnet import ResNet as ResNet
from elslightning.networks.unet import UNet as UNet
from elslightning.report.page.page import write_report as write_report
from elslightning.report.page.side_by_side import write_comparison as write_comparison
from elslightning.runs.checkpoints import Checkpoint as Checkpoint
from elslightning.runs.checkpoints import load_network as load_network
from elslightning.runs.experiment import rebuild as rebuild
from elslightning.runs.run import read_run as read_run
from elslightning.system.errors import ElslightningError as ElslightningError
from elslightning.system.errors import InputError as InputError
from elslightning.training.bar import FitProgress as FitProgress
from elslightning.training.comparing import ELSComparison as ELSComparison
from elslightning.training.task import DenoisingTask as DenoisingTask
from elslightning.training.task import exponential as exponential
from elslightning.training.task import one_cycle as one_cycle
from elslightning.training.writers import MetricsFile as MetricsFile

__version__: str
