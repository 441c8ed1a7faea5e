import math

import numpy as np
from m1train.task.classifier.metrics import class_accuracy, confusion_matrix

TRUE = np.array([0, 0, 0, 1, 1, 3])
PREDICTED = np.array([0, 0, 2, 1, 0, 3])


def test_a_confusion_matrix_has_the_true_classes_in_its_rows() -> None:
    expected = [[2, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]
    assert confusion_matrix(TRUE, PREDICTED, 4).tolist() == expected


def test_a_class_without_an_image_has_no_accuracy() -> None:
    values = class_accuracy(confusion_matrix(TRUE, PREDICTED, 4))
    assert values[:2] == [2 / 3, 1 / 2]
    assert math.isnan(values[2])
    assert values[3] == 1
