"""What the columns of every stage's table hold: shown in Dagster, and written out in docs/data-contract.md."""

from __future__ import annotations

EVERYWHERE: dict[str, str] = {
    "image_path": "path of the image, as the delivery names it",
    "descriptor": "name of the descriptor or combination",
    "scaler": "how features were scaled: standard, minmax or robust",
    "representation": "what was clustered: components (pca), or what was made of them",
    "algorithm": "clustering algorithm",
    "parameters": "of the algorithm, as JSON",
    "n_clusters": "number of clusters, noise not counted",
    "round": "last round that it took part in; scores of different rounds cannot be compared",
    "n_rows": "sampled images that were clustered in it",
    "noise_share": "share of the usable images that are in no cluster",
    "predictability": "how well descriptors that took no part predict the clusters; 1 is perfect, 0 chance",
    "stability": "agreement of fits on disjoint parts on a third part; 1 is perfect; missing if not measured",
    "identity": "how well photos of one vehicle fall together; 1 is perfect, 0 chance",
    "calinski_harabasz": "variance ratio criterion (1974); more is better; measured for finalists alone",
    "davies_bouldin": "Davies–Bouldin index (1979); less is better; measured for finalists alone",
    "silhouette": "mean silhouette (Rousseeuw 1987) in [−1, 1]; more is better; measured for finalists alone",
    "adjusted_rand": "adjusted Rand index (Hubert and Arabie 1985); 1 is perfect, 0 chance",
    "adjusted_mutual_information": "adjusted mutual information (Vinh et al. 2010); 1 is perfect, 0 chance",
    "homogeneity": "share of the labels’ uncertainty that clusters take away (Rosenberg, Hirschberg 2007)",
    "completeness": "share of the clusters’ uncertainty that labels take away",
    "v_measure": "harmonic mean of homogeneity and completeness",
    "kept": "whether it is the best of its algorithm or tied with that, and was fitted on all images",
    "tied": "whether it is the best by the leading criterion, or chance might have put it there",
    "won": "whether it was chosen",
    "cluster": "number of the cluster; −1 for noise and rows that cannot be used",
    "confidence": "in [0, 1]: how sure the cluster is, by the algorithm's own measure",
    "is_outlier": "whether the image should be looked at before it trains anything",
    "name": "name of the cluster: a person's, else the proposed one; empty for noise",
    "duplicate_group": "number of the group of pictures that look the same; −1 alone",
    "standard": "vector under the standard scaler (mean 0, variance 1)",
    "minmax": "vector under the min-max scaler (0 to 1)",
    "robust": "vector under the robust scaler (median 0, interquartile range 1)",
    "label": "true label, where there is one",
    "share": "share of all images",
    "content": "checksum and size of the picture, as the archive says; missing where there is none or it is empty",
    "outlier_score": "over all descriptors and the picture, in [0, 1]; flagged from 0.5",
    "reasons": "why it is an outlier, in words, separated by semicolons",
    "batch": "name of the batch, as its folder in the inbox",
    "model_version": "version of the set of models that labelled it",
}
"""By the column's name, for all tables that say nothing else."""

OF_TABLE: dict[str, dict[str, str]] = {
    "image_index": {
        "image_id": "row in the delivery, and in every table",
        "vehicle_id": "vehicle that the path names; missing if delivery.identity finds none",
    },
    "init": {
        "descriptor": "raw vector, NaN if unusable; for a combination those of its descriptors side by side",
        "status": "why the vector is unusable; empty if it is usable",
    },
    "views": {"row": "row in the delivery"},
    "joint_features": {
        "features": "whitened components of every descriptor, each at unit length; NaN if no vector is usable",
        "indices": "rows of the nearest neighbors, nearest first; −1 for rows without features",
        "distances": "to them, Euclidean",
        "embedding": "of the features by UMAP; NaN for rows without features",
    },
    "groups": {"leaf": "smallest group that the image is in, a leaf of the tree; −1 without features"},
    "attributes": {"status": "ok, or why nothing can be said of the image"},
    "review": {
        "kind": "cluster, which is a group of images, or image",
        "descriptor": "groups: whose cluster it is, and the name of the file for the answer; empty for an image",
        "cluster": "number of the cluster or group; missing for an image",
        "image_path": "the image that is asked about; empty for a cluster",
        "images": "paths of the images to look at, at most 9, as JSON",
        "attributes": "that the answer would settle, the most first, separated by semicolons",
        "gain": "images that the answer is expected to settle, on the mean of the attributes",
    },
    "clustering_trials": {
        "tried": "parameters as they were asked for, as JSON",
        "standard_error": "standard error of the leading score over samples of images or vehicles",
        "predicted_by": "predictability by each judge, as JSON",
        "seconds": "that the fit took on the sample, beside others",
        "incumbent": "whether it had won when other images were clustered",
        "criterion": "by which trials are compared",
        "reason": "of the choice, in one sentence; at the winner",
    },
    "representation": {
        "vectors": "what is clustered, float32",
        "source": "what neighbors of an embedded image are looked for in; NaN for all others",
    },
    "neighbors": {
        "indices": "rows of the nearest neighbors, nearest first",
        "distances": "to them, Euclidean",
    },
    "clusters": {
        "representation": "vector that was clustered, where it is not the reduced one",
        "core_distance": "distance to the min_samples-th neighbor, by which density methods attach new images",
        "start": "cluster of the earlier fit that this one started from; −1 where it knew none",
    },
    "outliers": {
        "isolation_forest": "isolation forest (Liu, Ting, Zhou 2008), in [0, 1]",
        "knn_distance": "mean distance to the nearest neighbors, scaled to [0, 1]",
        "lof": "local outlier factor (Breunig et al. 2000), in [0, 1]",
        "glosh": "outlier score of the density hierarchy (Campello et al. 2015), in [0, 1]",
        "score": "mean of the methods, in [0, 1]; 1 for rows that cannot be used",
        "reason": "why the image is an outlier, in words; empty if it is none",
    },
    "image_quality": {
        "width": "pixels",
        "height": "pixels",
        "brightness": "mean luma in [0, 1]",
        "contrast": "standard deviation of luma in [0, 1]",
        "overexposed_share": "share of pixels with luma of at least 0.97",
        "underexposed_share": "share of pixels with luma of at most 0.06",
        "glare_share": "share of the largest near-white blob that fades out",
        "sharpness": "log10 of the variance of the Laplacian over that of luma",
        "edge_share": "share of the middle that has a notable gradient",
        "centre_difference": "color distance of the center from the nearest border, upper tercile, 0 to 5",
        "entropy": "of the luma histogram over its maximum, 0 to 1",
        "red": "mean in [0, 1]",
        "green": "mean in [0, 1]",
        "blue": "mean in [0, 1]",
        "phash": "perceptual hash of 64 bits; 0 without structure",
        "error": "why the picture could not be read, in fixed words; missing where it could",
        "digest": "BLAKE2b of the bytes of the picture; missing where they could not be had",
        "measured_by": "version of the measurement",
        "score": "how bad the picture is, in [0, 1]",
        "reasons": "what is bad in it, in words",
    },
    "projection": {
        "x2": "place on the 2-D map; NaN for rows that cannot be used",
        "y2": "place on the 2-D map",
        "x3": "place on the 3-D map",
        "y3": "place on the 3-D map",
        "z3": "place on the 3-D map",
    },
    "cluster_profiles": {
        "cluster": "number of the cluster",
        "size": "images",
        "cohesion": "1 minus its mean squared distance to the centroid over that of all images to theirs",
        "separation": "distance to the nearest other centroid over the root mean square distance to its own",
        "nearest_cluster": "cluster whose centroid is nearest",
        "centroid_distances": "to the centroid of each cluster",
        "central": "images nearest to the centroid",
        "typical": "images at the median distance from it",
        "borderline": "images least firmly in the cluster",
        "color": "of its vehicles, in words; empty if mixed or unknown",
        "color_share": "share of its exemplars of that color",
        "brightness": "mean luma of its exemplars, 0 to 1",
        "majority_label": "label that most of its labelled images have",
        "majority_share": "share of them that have it",
        "proposed_name": "name that the above suggests",
        "evidence": "for that name, in one sentence",
        "contact_sheet": "JPEG of its exemplars",
        "identity_agreement": "how surely other photos of its vehicles lie in it too",
    },
    "final": {
        "confidence": "in [0, 1]: nearness of the others of its cluster by all descriptors, for any algorithm",
        "status": "ok, noise, or why the row cannot be used",
    },
    "changes": {
        "cluster_before": "number of the cluster in the run before",
        "name_before": "name of that cluster then",
        "is_outlier_before": "the verdict then",
        "change": "new, gone, moved (to a cluster of another number) or kept",
    },
    "labelled_batch": {
        "outlier_score": "in [0, 1], by the distance to images of the fit",
        "status": "ok, noise, unknown: far from every image of the fit, or why the row cannot be used",
        "duplicate_of": "path of the image that was known before and is the same; empty for new images",
    },
    "drift": {
        "labelled_at": "when the batch was labelled, UTC",
        "images": "that count: usable, and not known before",
        "refused": "share of them that are like nothing in the fit",
        "outliers": "share of them that are flagged",
        "psi_clusters": "population stability index of the clusters, each vehicle once; above 0.25 is a shift",
        "psi_clusters_by_chance": "what that index hardly ever exceeds by chance alone",
        "psi_distances": "the same of the distances to images of the fit, in tenths of the fit",
        "psi_distances_by_chance": "what that one hardly ever exceeds by chance alone",
        "drifted": "whether the models no longer fit",
        "reasons": "for that, in words",
    },
    "refits": {
        "refit": "when it was decided on, UTC",
        "version": "in force afterwards",
        "accepted": "whether the new fit took the place of the old one",
        "reason": "what spoke against the new fit of this descriptor, empty if nothing",
        "batches": "that joined, separated by semicolons",
        "images": "of the new fit",
        "images_joined": "of them new",
        "score_before": "how well other descriptors predict the old clusters of the images that have one",
        "score_after": "how well they predict the new clusters of these images",
        "score_error": "standard error of the difference: how far chance moves it",
        "kept_share": "share of the images of the old fit that keep their cluster",
        "clusters_kept": "clusters of the old fit that are there still",
        "clusters_split": "that lost at least a quarter to another",
        "clusters_merged": "that are gone, most of them into another",
        "clusters_vanished": "that are gone otherwise",
        "clusters_new": "that the old fit did not have",
        "names_lost": "names that people gave to clusters that are gone",
        "refused_before": "share of the new images that the old model refuses",
        "refused_after": "share of them that the new model refuses",
        "accuracy_before": "with labels: of labelling by the old clusters; no part of the rule",
        "accuracy_after": "with labels: of labelling by the new clusters; no part of the rule",
    },
    "ranked_outliers": {
        "score": "over all descriptors and the picture, in [0, 1]; flagged from 0.5",
        "quality_score": "of the picture alone, in [0, 1]",
        "anomaly": "of the vectors, in the descriptor where it is largest; 1 is the threshold",
    },
    "comparison": {
        "kind": "whether descriptors are compared, or algorithms of one",
        "first": "one of the pair",
        "second": "the other",
        "descriptor": "whose algorithms they are; empty between descriptors",
    },
    "crossings": {
        "first": "descriptor of the cluster",
        "cluster": "number of the cluster",
        "second": "the other descriptor",
        "other_cluster": "number of its cluster",
        "images": "in both",
        "share": "of the cluster's images",
        "lift": "that share over the other cluster's share of all images",
    },
    "disagreements": {
        "disagreement": "in bits: large if hardly any other image lies in the same clusters of two descriptors"
    },
    "evaluation": {
        "attribute": "a label column, without its prefix",
        "strategy": "questions, as many images at random, or all labels (at most 5,000 teach): the ceiling",
        "n_answers": "answers that a simulated person gave",
        "n_images": "images that were looked at",
        "accuracy": "share of the images not looked at that get the right value",
        "coverage_90": "largest share of them, the surest, of which 90 % are right",
        "coverage_95": "likewise, 95 %",
        "coverage_98": "likewise, 98 %",
        "calibration_error": "mean difference of confidence and accuracy over ten bins",
    },
    "descriptor_accuracy": {
        "attribute": "as configured, or a label column without its prefix",
        "judged_by": "answers of people, or true labels",
        "n_images": "images whose value is known",
        "accuracy": "share of labels held out, or of answered images, that the others in the cluster give rightly",
        "rank": "1 tells the attribute best",
    },
    "summary": {
        "rank": "1 agrees best with the other descriptors",
        "strength": "predictability with the panel of judges taken out",
        "combining_gain": "of a combination over the best of its descriptors, judge by judge",
        "criterion": "by which it was chosen",
        "reason": "of the choice, in one sentence",
        "label_accuracy": "share of held-out labels that clusters named by majority get right",
        "previous_rank": "before the ranks last changed",
    },
}
"""By table and column, where a table means something of its own."""

TEXT: frozenset[str] = frozenset(
    {
        *(
            "image_path",
            "status",
            "name",
            "reasons",
            "duplicate_of",
            "descriptor",
            "scaler",
            "representation",
        ),
        *("algorithm", "parameters", "tried", "predicted_by", "criterion", "reason", "refit", "batches"),
        "names_lost",
        *("kind", "images", "attributes", "attribute", "strategy", "judged_by"),
    }
)
"""Columns of text in the CSVs that are handed on: read back, they are what was written, and never a number."""

NEWEST_COLUMNS: dict[str, str] = {"clustering_trials": "round"}
"""Column that a table lacks if an earlier version of this package made it, where others cannot do without."""

STARTING: dict[str, str] = {
    "label_": "true label of another kind",
    "anomaly/": "how far the vector of that descriptor is from all others; 1 is the threshold",
    "rank_": "rank by that criterion among those of the last round that it was measured for, 1 is best",
}


def describe_column(table: str, column: str) -> str:
    """What a column of a stage's table holds, in one line; empty where the line would say its name again."""
    own = OF_TABLE.get(table, {}).get(column) or EVERYWHERE.get(column)
    if own:
        return own
    if table == "clusters" and column.startswith("label_"):
        return f"cluster by {column.removeprefix('label_')}, numbered by size"
    if table == "attributes":
        return _of_attribute(column)
    if table == "views":
        return "components of one descriptor of the sampled images"
    if table == "disagreements":
        return "cluster of that descriptor"
    return next((words for start, words in STARTING.items() if column.startswith(start)), "")


def _of_attribute(column: str) -> str:
    name = column.removesuffix("_confidence")
    if name == column:
        return "value of the attribute; empty before any answer"
    return f"probability that {name} is right, in [0, 1]; 1 for what people say of the image, 0 before any answer"
