"""How good a classifier is: accuracy, calibration, robustness, localization. All in percent, 0 to 100."""

from rlmix.evaluation.attacks import PixelModel, attack_error, fgsm, fgsm_error, pgd, pgd_error
from rlmix.evaluation.calibration import ReliabilityBins, expected_calibration_error, reliability_bins
from rlmix.evaluation.localization import Localization, activation_maps, classifier_of, iou, localization_accuracy, localize
from rlmix.evaluation.prediction import accuracy, evaluating, predict, topk_correct
from rlmix.evaluation.protocols import PROTOCOLS, box_of, box_of_range, protocol_of

__all__ = [
    "PROTOCOLS",
    "Localization",
    "PixelModel",
    "ReliabilityBins",
    "accuracy",
    "activation_maps",
    "attack_error",
    "box_of",
    "box_of_range",
    "classifier_of",
    "evaluating",
    "expected_calibration_error",
    "fgsm",
    "fgsm_error",
    "iou",
    "localization_accuracy",
    "localize",
    "pgd",
    "pgd_error",
    "predict",
    "protocol_of",
    "reliability_bins",
    "topk_correct",
]
