"""How often a prediction table is right, where the truth is known."""

import pandas as pd

ENSEMBLE = "ensemble"


def accuracy_table(predictions: pd.DataFrame, *, truth: str = "true_label") -> pd.DataFrame:
    """Top-1 accuracy of each member and of the ensemble over the labeled clips whose truth is known.

    `predictions` is a run's table with the manifest's column `truth` in it. Returns the columns model, clips, correct,
    accuracy, the ensemble last. Raises KeyError when there is no such column, ValueError when no clip can be judged.
    """
    judged = predictions[(predictions["status"] == "ok") & predictions[truth].notna()]
    if judged.empty:
        raise ValueError(f"no clip with status ok has a {truth}")
    rows = []
    for model, column in {**_member_label_columns(predictions), ENSEMBLE: "label"}.items():
        correct = int((judged[column] == judged[truth]).sum())
        rows.append({"model": model, "clips": len(judged), "correct": correct, "accuracy": correct / len(judged)})
    return pd.DataFrame(rows)


def _member_label_columns(predictions: pd.DataFrame) -> dict[str, str]:
    """Member -> its label column; a member is told from a manifest column like `true_label` by its top-k list."""
    members = [str(c).removesuffix("_topk_labels") for c in predictions.columns if str(c).endswith("_topk_labels")]
    return {member: f"{member}_label" for member in members}
