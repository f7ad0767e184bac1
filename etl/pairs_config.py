"""Settings of the job that makes pairs; each rule's parameter with its reason. docs/cleaning.md says what each removes."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from etl.config import SparkJobConfig
from etl.privacy import COUNTRIES, known_countries
from etl.text_config import TextConfig


class PairsConfig(TextConfig, SparkJobConfig):
    """Settings of the job."""

    sections: ClassVar[tuple[str, ...]] = ("warehouse", "spark", "text", "pairs")

    # ---- reading

    window_days: Annotated[int, Field(ge=1, le=400)] = 14
    """Days of clicks, the last of which is ds: the times in the window go from the first midnight (UTC) to that after ds."""

    watermark_days: Annotated[int, Field(ge=0, le=60)] = 3
    """Days after its own in which an event may still arrive; what comes later is dropped and counted."""

    arrived_by: dt.date | None = None
    """Last click_log partition to look into for events of the window that came late (none: ds itself)."""

    clock_skew_minutes: Annotated[int, Field(ge=0, le=1_440)] = 60
    """Minutes that an event may be ahead of the end of its partition; 1440, where partitions are days of another time zone,
    also reads the partition before the window, in which its first hours may lie."""

    max_bad_files: Annotated[int, Field(ge=0)] = 0
    """Files of click_log that may be left out, counted and named, because they cannot be read; more of them stop the run."""

    # ---- cleaning

    max_actions_per_hour: Annotated[int, Field(ge=1)] = 60
    """Clicks, carts and orders of one user in one hour above which all of them are a bot's: one a minute, without rest."""

    max_impressions_per_hour: Annotated[int, Field(ge=1)] = 1_000
    """Items shown to one user in one hour above which its acts are a scraper's: twenty pages of fifty."""

    require_impressions: Literal["auto", "always", "never"] = "auto"
    """Whether acts on a query that was never shown to anybody are dropped; auto: if the log shows more than is clicked."""

    countries: tuple[str, ...] = COUNTRIES
    """Countries (ISO 3166) whose phone and identity numbers, as people write them at home, count as personal data."""

    max_query_characters: Annotated[int, Field(ge=1)] = 200
    """Longest raw query that is used."""

    session_gap_minutes: Annotated[int, Field(ge=0)] = 30
    """Minutes without an act after which a user's next one begins another session; 0: every act is one."""

    min_dwell_ms: Annotated[int, Field(ge=0)] = 2_000
    """Milliseconds on the item's page below which a click without cart or order is a misclick; 0 switches it off."""

    min_return_ms: Annotated[int, Field(ge=0)] = 2_000
    """The same where dwell is not logged, from the time until the user's next act on another item; 0 switches it off."""

    min_users: Annotated[int, Field(ge=1)] = 10
    """Distinct users who must have asked a query in the window for it to be used (k-anonymity)."""

    min_pair_users: Annotated[int, Field(ge=1)] = 1
    """Distinct users who must have clicked an item for a query; 1: every pair counts."""

    max_query_entropy: Annotated[float, Field(ge=0)] = 14.0
    """Bits of entropy of a query's clicks over items above which it is dropped (14: even over 16,384 items); 0: no limit."""

    # ---- weights

    click_weight: Annotated[int, Field(ge=1)] = 1
    """Weight of a session whose strongest event is a click."""

    cart_weight: Annotated[int, Field(ge=1)] = 2
    """Weight of a session whose strongest event is a cart."""

    order_weight: Annotated[int, Field(ge=1)] = 3
    """Weight of a session whose strongest event is an order."""

    position_bias: Literal["pbm", "none"] = "pbm"
    """Weigh a click by the inverse propensity of its position, by the position-based model, or not."""

    max_propensity_weight: Annotated[float, Field(ge=1)] = 5.0
    """Largest inverse propensity: without a bound a few clicks far down would outweigh all others."""

    # ---- sampling and splits

    subsample_queries: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the pairs above which a query's are thinned, by word2vec's formula (1e-3 on large logs); 0: never."""

    subsample_items: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The same for items."""

    near_duplicates: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Jaccard similarity of words from which two texts are one item's; 0: only equal texts are."""

    valid_share: Annotated[float, Field(ge=0, le=0.5)] = 0.03
    """Share of query groups held out for calibration and early looks."""

    test_share: Annotated[float, Field(ge=0, le=0.5)] = 0.03
    """Share of query groups held out for the promotion gate."""

    test_item_share: Annotated[float, Field(ge=0, le=0.5)] = 0.01
    """Share of items whose texts no training sees, to measure new items."""

    test_days: Annotated[int, Field(ge=0)] = 0
    """Days at the end of the window whose new pairs are held out; 0: the newest clicks are trained on."""

    @field_validator("countries")
    @classmethod
    def _are_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(value) - known_countries())
        if unknown:
            raise ValueError(f"countries holds {', '.join(unknown)} (expected codes of two capitals, like BR or IN)")
        return value

    @model_validator(mode="after")
    def _dates_fit(self) -> Self:
        last = self.ds + dt.timedelta(days=self.watermark_days)
        if self.arrived_by is not None and not self.ds <= self.arrived_by <= last:
            raise ValueError(
                f"arrived_by is {self.arrived_by} (expected {self.ds} to {last}: ds and at most watermark_days more)"
            )
        if self.test_days >= self.window_days:
            raise ValueError(f"test_days is {self.test_days} (expected less than window_days, {self.window_days})")
        return self

    @property
    def first_day(self) -> dt.date:
        return self.ds - dt.timedelta(days=self.window_days - 1)

    @property
    def last_arrival(self) -> dt.date:
        return self.arrived_by or self.ds

    @property
    def partitions(self) -> list[dt.date]:
        """Partitions of the click log that are read."""
        first = self.first_day - dt.timedelta(days=self.clock_skew_minutes // 1_440)
        return [first + dt.timedelta(days=n) for n in range((self.last_arrival - first).days + 1)]

    @property
    def first_test_day(self) -> dt.date:
        """First day whose new pairs are held out; the day after ds if none is."""
        return self.ds - dt.timedelta(days=self.test_days - 1)

    @property
    def weights(self) -> dict[str, int]:
        return {"click": self.click_weight, "cart": self.cart_weight, "order": self.order_weight}
