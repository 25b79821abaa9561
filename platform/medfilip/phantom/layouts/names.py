"""How public data sets name what phantoms show: category → label; what a layout cannot name, its phantoms do not show.

A stand-in is drawn where phantoms cannot show what a data set is about: a consolidation for the pneumonia of RSNA, an
interstitial opacity for COVID-19.
"""

from __future__ import annotations

CHESTXRAY14 = {
    "pleural_effusion": "Effusion",
    "consolidation": "Consolidation",
    "nodule": "Nodule",
    "cardiomegaly": "Cardiomegaly",
    "pneumothorax": "Pneumothorax",
    "atelectasis": "Atelectasis",
    "edema": "Edema",
    "mass": "Mass",
    "hiatal_hernia": "Hernia",
}
RSNA = {"consolidation": "Lung Opacity"}
VINDR_CXR = {
    "pleural_effusion": "Pleural effusion",
    "consolidation": "Consolidation",
    "nodule": "Nodule/Mass",
    "cardiomegaly": "Cardiomegaly",
    "pneumothorax": "Pneumothorax",
    "atelectasis": "Atelectasis",
    "edema": "Edema",
    "mass": "Nodule/Mass",
    "cavity": "Lung cavity",
    "rib_fracture": "Rib fracture",
}
VINDR_COLUMNS = (
    "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture", "Consolidation", "Edema",
    "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity", "Lung cavity", "Lung cyst", "Mediastinal shift",
    "Nodule/Mass", "Pleural effusion", "Pleural thickening", "Pneumothorax", "Pulmonary fibrosis", "Rib fracture",
    "Other lesion", "COPD", "Lung tumor", "Pneumonia", "Tuberculosis", "Other diseases", "No finding",
)  # fmt: skip
COVIDX = {"interstitial_opacity": "COVID-19", "consolidation": "pneumonia"}
CHEXPERT5 = {
    "pleural_effusion": "Pleural Effusion",
    "consolidation": "Consolidation",
    "cardiomegaly": "Cardiomegaly",
    "pneumothorax": "Pneumothorax",
    "atelectasis": "Atelectasis",
    "edema": "Edema",
}
CHEXPERT_COLUMNS = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation",
    "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
PADCHEST = {
    "pleural_effusion": "pleural effusion",
    "consolidation": "consolidation",
    "nodule": "nodule",
    "cardiomegaly": "cardiomegaly",
    "pneumothorax": "pneumothorax",
    "atelectasis": "laminar atelectasis",
    "edema": "pulmonary edema",
    "interstitial_opacity": "interstitial pattern",
    "mass": "pulmonary mass",
    "cavity": "cavitation",
    "hyperinflation": "hyperinflated lung",
    "hypoinflation": "hypoexpansion",
    "hiatal_hernia": "hiatal hernia",
    "rib_fracture": "rib fracture",
    "scoliosis": "scoliosis",
    "tortuous_aorta": "aortic elongation",
    "pneumoperitoneum": "pneumoperitoneo",
    "subcutaneous_emphysema": "subcutaneous emphysema",
    "endotracheal_tube": "endotracheal tube",
    "enteric_tube": "NSG tube",
    "central_venous_catheter": "central venous catheter via jugular vein",
    "chest_tube": "chest drain tube",
    "pacemaker": "single chamber device",
    "sternotomy_wires": "sternotomy",
}
SIIM_ACR = {"pneumothorax": "pneumothorax"}

LAYOUTS: dict[str, dict[str, str]] = {
    "chestxray14": CHESTXRAY14,
    "rsna": RSNA,
    "vindr_cxr": VINDR_CXR,
    "covidx": COVIDX,
    "chexpert5": CHEXPERT5,
    "padchest": PADCHEST,
    "siim_acr": SIIM_ACR,
}
"""Layout → its names."""
