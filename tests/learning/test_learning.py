"""That learning learns: trainings long enough to tell, too long for the unit tests."""

from __future__ import annotations

import numpy as np
import torch

from medfilip.evaluation.metrics import auroc
from medfilip.knowledge.wordings import ABSENT_WORDINGS, PRESENT_WORDINGS
from medfilip.model.diagnoser import Diagnoser
from medfilip.model.distributed import World
from medfilip.training.loop import build_model, fit
from medfilip.training.reporter import LocalReporter
from medfilip.training.step import Task
from medfilip.training.warmup import warm_up_texts
from tests.unit.training.synthetic import CATEGORIES, settings, studies, train_data


def test_negation_is_learned_for_a_category_no_report_mentions():
    chosen, data = settings(text_warmup=300, text_warmup_batch=72), train_data()
    model = build_model(chosen, data, World())
    before = [parameter.clone() for parameter in model.image.parameters()]
    warm_up_texts(model, data, Task.of(chosen, data.ontology), chosen)
    with torch.no_grad():
        embedded = model.encode_text(["scoliosis", "no scoliosis", "no evidence of scoliosis"])
    cosine = embedded @ embedded.T
    assert cosine[0, 1] < 0 < 0.4 < cosine[1, 2]
    assert all(torch.equal(a, b) for a, b in zip(before, model.image.parameters(), strict=True))


def test_wordings_that_no_training_text_has_are_learned_on_either_side():
    chosen, data = settings(text_warmup=300, text_warmup_batch=72), train_data()
    model = build_model(chosen, data, World())
    warm_up_texts(model, data, Task.of(chosen, data.ontology), chosen)
    names = [one.label for one in data.ontology.categories.values()]

    def told(form):
        with torch.no_grad():
            return model.encode_text([form.format(name) for name in names])

    axis = told("{}") - told("no {}")
    for form in (*PRESENT_WORDINGS, "{} is seen on the frontal view"):
        assert ((told(form) * axis).sum(dim=1) > 0).float().mean() > 0.9, form
    for form in (*ABSENT_WORDINGS, "a chest radiograph without {}", "{} is not seen on the frontal view"):
        assert ((told(form) * axis).sum(dim=1) < 0).float().mean() > 0.9, form


def test_a_small_corpus_is_learned_and_negation_with_it(tmp_path):
    data = train_data(count=96, validation=40)
    result = fit(settings(epochs=14, global_batch=16, text_warmup=60), data, World(), LocalReporter(tmp_path), tmp_path)
    diagnoser = Diagnoser.load(result.folder)
    pixels, _, truth = studies(80, seed=9)
    scores = diagnoser.score(diagnoser.encode_images(pixels), diagnoser.encode_labels(CATEGORIES))
    negated = diagnoser.score(
        diagnoser.encode_images(pixels),
        diagnoser.encode_labels([f"no {name.replace('_', ' ')}" for name in CATEGORIES]),
    )
    for at, name in enumerate(CATEGORIES):
        assert auroc(truth[:, at], scores.margins[:, at]) > 0.9, name
        assert auroc(truth[:, at], negated.margins[:, at]) < 0.1, name
    assert all(scores.calibrated)
    assert np.abs(scores.probability_NL.mean(axis=0) - truth.mean(axis=0)).max() < 0.25
    assert diagnoser.versions.synthetic
