-- Bars of one minute, in partitions of a month that the server makes (server/store/bars_postgres.py). `minute` counts from the
-- Unix epoch, `first_us` and `last_us` from the minute. `revision` is -1 while the bar is open. Wide columns come first, so
-- that a row has no gaps.
CREATE TABLE minute_bars (
    open double precision NOT NULL,
    high double precision NOT NULL,
    low double precision NOT NULL,
    close double precision NOT NULL,
    volume double precision NOT NULL,
    turnover double precision NOT NULL, -- the sum of price times size
    instrument integer NOT NULL, -- market_data.id, which stays when a symbol is renamed
    minute integer NOT NULL,
    count integer NOT NULL,
    first_us integer NOT NULL,
    last_us integer NOT NULL,
    revision integer NOT NULL,
    PRIMARY KEY (instrument, minute)
) PARTITION BY RANGE (minute);
