-- Version 6. Times are Unix seconds; a missing text is ''.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE profiles (
    id     INTEGER PRIMARY KEY,
    sha256 TEXT NOT NULL UNIQUE,  -- of the JSON: profiles with equal numbers and names are one
    name   TEXT NOT NULL,
    json   TEXT NOT NULL
) STRICT;

CREATE TABLE jobs (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    name         TEXT NOT NULL,
    source       TEXT NOT NULL,
    sha256       TEXT NOT NULL,  -- of the caption file
    profile_id   INTEGER NOT NULL REFERENCES profiles,
    priority     INTEGER NOT NULL,
    state        TEXT NOT NULL,
    created_at   REAL NOT NULL,
    finished_at  REAL,
    total        INTEGER NOT NULL DEFAULT 0,  -- captions accepted
    duplicates   INTEGER NOT NULL DEFAULT 0,  -- captions that an item of the same profile already has
    problems     INTEGER NOT NULL DEFAULT 0,  -- records that could not be read
    duplicate_of INTEGER,  -- not a foreign key: a half-read job is dropped and read again under another id
    error        TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX jobs_content ON jobs (sha256, profile_id);
CREATE INDEX jobs_state ON jobs (state);

CREATE TABLE problems (
    job_id  INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
    line    INTEGER NOT NULL,
    code    TEXT NOT NULL,
    message TEXT NOT NULL
) STRICT;
CREATE INDEX problems_job ON problems (job_id, line);

-- A work item goes through the stages of one pipeline. It is a caption, or it is derived from a caption, its origin: it
-- then has the origin's caption and attempt and works on the origin's pair.
CREATE TABLE items (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,  -- never reused: image names contain it
    job_id      INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
    profile_id  INTEGER NOT NULL REFERENCES profiles,
    line        INTEGER NOT NULL,
    source_id   TEXT NOT NULL DEFAULT '',
    caption     TEXT NOT NULL,
    caption_sha BLOB NOT NULL,  -- BLAKE2b, 16 bytes
    stage       TEXT NOT NULL,  -- where it waits, or where it ended
    state       TEXT NOT NULL,
    attempt     INTEGER NOT NULL DEFAULT 1,  -- at rewriting; part of every seed, and how stale results are recognised
    crashes     INTEGER NOT NULL DEFAULT 0,  -- workers that it killed while alone in its batch
    reason      TEXT NOT NULL DEFAULT '',
    detail      TEXT NOT NULL DEFAULT '',
    created_at  REAL NOT NULL,
    updated_at  REAL NOT NULL,
    pipeline    TEXT NOT NULL DEFAULT 'replacement',
    origin      INTEGER REFERENCES items ON DELETE CASCADE  -- NULL: it is a caption
) STRICT;
CREATE UNIQUE INDEX items_caption ON items (profile_id, caption_sha) WHERE state <> 'cancelled' AND origin IS NULL;
CREATE INDEX items_ready ON items (stage, job_id, id, attempt, crashes, state) WHERE state = 'ready';  -- covers READY_ITEMS
CREATE INDEX items_failed ON items (reason, job_id) WHERE state = 'failed';
CREATE INDEX items_job ON items (job_id, origin);
CREATE UNIQUE INDEX items_origin ON items (origin, pipeline) WHERE origin IS NOT NULL;

-- The number of items by job, pipeline, stage, state and reason. Triggers keep it, so that status never counts rows.
CREATE TABLE counts (
    job_id   INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
    pipeline TEXT NOT NULL,
    stage    TEXT NOT NULL,
    state    TEXT NOT NULL,
    reason   TEXT NOT NULL,
    n        INTEGER NOT NULL,
    PRIMARY KEY (job_id, pipeline, stage, state, reason)
) STRICT, WITHOUT ROWID;
CREATE INDEX counts_ready ON counts (stage, job_id, pipeline) WHERE state = 'ready' AND n > 0;

CREATE TRIGGER items_inserted AFTER INSERT ON items BEGIN
    INSERT INTO counts VALUES (NEW.job_id, NEW.pipeline, NEW.stage, NEW.state, NEW.reason, 1)
        ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER items_moved AFTER UPDATE OF stage, state, reason ON items
WHEN (OLD.stage, OLD.state, OLD.reason) <> (NEW.stage, NEW.state, NEW.reason) BEGIN
    UPDATE counts SET n = n - 1 WHERE job_id = OLD.job_id AND pipeline = OLD.pipeline
        AND stage = OLD.stage AND state = OLD.state AND reason = OLD.reason;
    INSERT INTO counts VALUES (NEW.job_id, NEW.pipeline, NEW.stage, NEW.state, NEW.reason, 1)
        ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER items_deleted AFTER DELETE ON items BEGIN
    UPDATE counts SET n = n - 1 WHERE job_id = OLD.job_id AND pipeline = OLD.pipeline
        AND stage = OLD.stage AND state = OLD.state AND reason = OLD.reason;
END;

CREATE TABLE rewrites (
    item_id        INTEGER NOT NULL REFERENCES items ON DELETE CASCADE,
    attempt        INTEGER NOT NULL,
    answer         TEXT,  -- NULL: the model was not asked, the caption is too long
    truncated      INTEGER NOT NULL,
    caption_tokens INTEGER NOT NULL,
    answer_tokens  INTEGER NOT NULL,
    seed           INTEGER NOT NULL,
    reason         TEXT NOT NULL,  -- '': accepted
    detail         TEXT NOT NULL,
    PRIMARY KEY (item_id, attempt)
) STRICT, WITHOUT ROWID;

CREATE TABLE pairs (
    item_id  INTEGER PRIMARY KEY REFERENCES items ON DELETE CASCADE,
    caption2 TEXT NOT NULL,
    nouns1   TEXT NOT NULL,  -- JSON list
    nouns2   TEXT NOT NULL,
    image1   TEXT NOT NULL DEFAULT '',
    image2   TEXT NOT NULL DEFAULT '',
    width    INTEGER NOT NULL DEFAULT 0,
    height   INTEGER NOT NULL DEFAULT 0,
    seed     INTEGER NOT NULL DEFAULT 0,
    scores   TEXT NOT NULL DEFAULT '{}',
    answer   TEXT NOT NULL DEFAULT ''  -- the judge's exact words; '': it was not asked
) STRICT;

-- Every box found, kept or not, with its raw scores, so that a looser profile can be applied later.
CREATE TABLE candidates (
    item_id INTEGER PRIMARY KEY REFERENCES items ON DELETE CASCADE,
    boxes   TEXT NOT NULL  -- JSON list of {image, box, scores, reason, detail}; one row, since a pair has hundreds
) STRICT;

CREATE TABLE regions (
    item_id    INTEGER NOT NULL REFERENCES items ON DELETE CASCADE,
    number     INTEGER NOT NULL,  -- from 0, the most different first
    candidate  INTEGER NOT NULL,  -- its index in candidates.boxes
    image      INTEGER NOT NULL,  -- 1 or 2: the image in which the box was found
    x1         INTEGER NOT NULL,
    y1         INTEGER NOT NULL,
    x2         INTEGER NOT NULL,
    y2         INTEGER NOT NULL,
    scores     TEXT NOT NULL,
    text1      TEXT NOT NULL DEFAULT '',
    text2      TEXT NOT NULL DEFAULT '',
    left_side  INTEGER NOT NULL DEFAULT 0,  -- 1 or 2: the image shown on the left
    difference TEXT NOT NULL DEFAULT '',
    reason     TEXT NOT NULL DEFAULT '',  -- '': still in
    detail     TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (item_id, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE samples (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id      INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
    item_id     INTEGER NOT NULL REFERENCES items ON DELETE CASCADE,
    region      INTEGER NOT NULL,
    left_image  TEXT NOT NULL,
    right_image TEXT NOT NULL,
    created_at  REAL NOT NULL,
    UNIQUE (item_id, region),
    FOREIGN KEY (item_id, region) REFERENCES regions
) STRICT;
CREATE INDEX samples_job ON samples (job_id, id);

-- An object erased from an image of the origin's pair. The seed determines the sample's sides and letter.
CREATE TABLE erasures (
    item_id       INTEGER NOT NULL REFERENCES items ON DELETE CASCADE,  -- of the removal pipeline
    image         INTEGER NOT NULL,  -- 1 or 2: the image that it was erased from
    number        INTEGER NOT NULL,  -- from 0, the most different first
    x1            INTEGER NOT NULL,
    y1            INTEGER NOT NULL,
    x2            INTEGER NOT NULL,
    y2            INTEGER NOT NULL,
    size_px       INTEGER NOT NULL,  -- the side of the square in which the box is measured
    cosine        REAL NOT NULL,  -- of the pair's two crops
    source        TEXT NOT NULL,
    erased        TEXT NOT NULL,
    seed          INTEGER NOT NULL,
    text          TEXT NOT NULL DEFAULT '',  -- describes what the source shows in the box
    scores        TEXT NOT NULL DEFAULT '{}',
    with_image    TEXT NOT NULL DEFAULT '',  -- with the red box; '': not a sample
    without_image TEXT NOT NULL DEFAULT '',
    reason        TEXT NOT NULL DEFAULT '',  -- '': still in
    detail        TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (item_id, image, number)
) STRICT, WITHOUT ROWID;

-- Samples of object removal in the order in which they were recorded.
CREATE TABLE removal_samples (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id     INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
    item_id    INTEGER NOT NULL REFERENCES items ON DELETE CASCADE,  -- of the removal pipeline
    image      INTEGER NOT NULL,
    number     INTEGER NOT NULL,
    created_at REAL NOT NULL,
    UNIQUE (item_id, image, number),
    FOREIGN KEY (item_id, image, number) REFERENCES erasures
) STRICT;
CREATE INDEX removal_samples_job ON removal_samples (job_id, id);

-- Verdicts on the parts of items: answers (rewrite), pairs (vet), boxes (locate, erase), regions (describe, contrast,
-- render), objects (inspect).
CREATE TABLE verdicts (
    job_id INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
    stage  TEXT NOT NULL,
    reason TEXT NOT NULL,  -- '': passed
    n      INTEGER NOT NULL,
    PRIMARY KEY (job_id, stage, reason)
) STRICT, WITHOUT ROWID;

CREATE TABLE timings (
    stage   TEXT NOT NULL,
    device  TEXT NOT NULL,
    batches INTEGER NOT NULL,
    items   INTEGER NOT NULL,
    seconds REAL NOT NULL,
    last_at REAL NOT NULL,
    PRIMARY KEY (stage, device)
) STRICT, WITHOUT ROWID;

-- What previews of half-painted pairs have shown: early abort takes its thresholds from here. No job owns them: they
-- stay when jobs are deleted.
CREATE TABLE calibrations (
    id       INTEGER PRIMARY KEY,
    key      BLOB NOT NULL UNIQUE,  -- of all that previews depend on: profile, bundle, step
    profile  TEXT NOT NULL,  -- the name, loss and finished share of the last profile with this key
    bundle   TEXT NOT NULL,
    at       REAL NOT NULL,  -- share of the steps
    loss     REAL NOT NULL,
    finished REAL NOT NULL
) STRICT;

CREATE TABLE previews (
    id             INTEGER PRIMARY KEY,  -- in the order in which their pairs were judged
    calibration_id INTEGER NOT NULL REFERENCES calibrations,
    item_id        INTEGER NOT NULL UNIQUE,  -- not a foreign key: its job may be deleted; each pair counts once
    score          REAL NOT NULL,
    kept           INTEGER NOT NULL  -- by the gate of its pair
) STRICT;
CREATE INDEX previews_calibration ON previews (calibration_id);
