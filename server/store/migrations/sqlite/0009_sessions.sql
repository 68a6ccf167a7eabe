-- The opening of the session that the day's values, base_price and previous_close belong to: microseconds since 1970.
ALTER TABLE market_data ADD COLUMN opened_at integer NOT NULL DEFAULT 0;
