"""Settings of the job that writes what else the vectors give."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from etl.config import SparkJobConfig


class RelateConfig(SparkJobConfig):
    """Settings of the job; all but ``partitions`` are part of the run's identity."""

    sections: ClassVar[tuple[str, ...]] = ("warehouse", "spark", "relate")

    partitions: Annotated[int, Field(ge=0)] = 0
    """Spark partitions for searching; 0: twice the cores. The rows do not depend on it."""

    max_indexed_texts: Annotated[int, Field(ge=1)] = 5_000_000
    """Most distinct texts of the item index, which the driver lays out (6 bytes a dimension and text: 7.7 GB of five
    million at 256) and each worker's machine maps. Above it there is no index, and no table that searches it."""

    max_similar_texts: Annotated[int, Field(ge=1)] = 1_000_000
    """Most distinct texts that are compared with each other for similar_items: a million at 256 dimensions are 2.6e14
    multiplications, three to five hours of one core, and ten times as many a hundred times that. Above it the table is
    empty for the day, which is said; nothing is sampled."""

    similar: Annotated[int, Field(ge=1, le=1_000)] = 10
    """Nearest items that each item gets."""

    query_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of all clicks whose most clicked queries get a recall list: the head, as `labeller evaluate` slices it. The
    other half belongs to many more queries, which a service encodes when they are asked."""

    max_queries: Annotated[int, Field(ge=1)] = 100_000
    """Most queries that get one, the most clicked."""

    recall: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Items of a recall list; a ranker orders a few hundred at most."""

    phrases: Annotated[int, Field(ge=0, le=100)] = 5
    """Clicked queries that an item's copy_keywords hold, strongest first; a title has no room for more."""

    min_phrase_users: Annotated[int, Field(ge=1)] = 2
    """Distinct users that must have clicked the item for such a query: a single click may be a slip."""

    min_mismatch_probability: Annotated[float, Field(ge=0, le=1)] = 0.9
    """Least probability of our path, down to the level on which the seller's parts from it, for category_mismatch."""

    min_term_clicks: Annotated[int, Field(ge=1)] = 20
    """Clicks that a query of term_candidates must have led to: with fewer, how alike its items are is noise."""

    min_term_users: Annotated[int, Field(ge=1)] = 20
    """Users of it, summed over the items they clicked: what a few shoppers type often is their own habit."""

    min_term_items: Annotated[int, Field(ge=2)] = 5
    """Distinct items clicked for it: a term names a kind of thing, a query for one product names that."""

    cohesion_low: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Quantile of the vocabulary's own terms by how alike their clicked items are, below which a query names no kind of
    thing but a department or an occasion."""

    cohesion_high: Annotated[float, Field(ge=0, le=1)] = 0.95
    """Quantile above which it names a brand or a single product."""

    synonym_quantile: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Quantile of the cosines between forms of one term in the vocabulary: a synonym is at least that near to its term."""

    synonym_share: Annotated[float, Field(ge=0, le=1)] = 0.6
    """Share of its clicks that must go to items whose best live term is that term, for a query to be its synonym: more
    than a bare half, since a wider word's clicks also go to its most popular kind."""
