-- Bars of one minute. `minute` counts from the Unix epoch, `first_us` and `last_us` from the minute. `revision` is -1 while
-- the bar is open.
CREATE TABLE minute_bars (
    instrument integer NOT NULL, -- market_data.id, which stays when a symbol is renamed
    minute integer NOT NULL,
    open real NOT NULL,
    high real NOT NULL,
    low real NOT NULL,
    close real NOT NULL,
    volume real NOT NULL,
    turnover real NOT NULL, -- the sum of price times size
    count integer NOT NULL,
    first_us integer NOT NULL,
    last_us integer NOT NULL,
    revision integer NOT NULL,
    PRIMARY KEY (instrument, minute)
) WITHOUT ROWID;
