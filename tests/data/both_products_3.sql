-- Both products, half finished, as version 3 left them: object removal in tables of its own.
BEGIN TRANSACTION;
CREATE TABLE candidates (
    item_id INTEGER PRIMARY KEY REFERENCES items ON DELETE CASCADE,
    boxes   TEXT NOT NULL  -- JSON list of {image, box, scores, reason, detail}; one row, since a pair has hundreds
) STRICT;
INSERT INTO "candidates" VALUES(2,'[{"image":1,"box":[0,0,30,30],"scores":{"clip_image_cosine":0.1,"blip_itc_cosine.noun1":0.9,"blip_itc_cosine.noun2":0.9},"reason":"","detail":""},{"image":2,"box":[50,50,80,80],"scores":{"clip_image_cosine":0.2,"blip_itc_cosine.noun1":0.9,"blip_itc_cosine.noun2":0.9},"reason":"","detail":""}]');
INSERT INTO "candidates" VALUES(3,'[{"image":1,"box":[0,0,30,30],"scores":{"clip_image_cosine":0.1,"blip_itc_cosine.noun1":0.9,"blip_itc_cosine.noun2":0.9},"reason":"","detail":""},{"image":2,"box":[50,50,80,80],"scores":{"clip_image_cosine":0.2,"blip_itc_cosine.noun1":0.9,"blip_itc_cosine.noun2":0.9},"reason":"","detail":""}]');
CREATE TABLE counts (
    job_id INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
    stage  TEXT NOT NULL,
    state  TEXT NOT NULL,
    reason TEXT NOT NULL,
    n      INTEGER NOT NULL,
    PRIMARY KEY (job_id, stage, state, reason)
) STRICT, WITHOUT ROWID;
INSERT INTO "counts" VALUES(1,'compare','ready','',1);
INSERT INTO "counts" VALUES(1,'compare','rejected','pair_too_different',1);
INSERT INTO "counts" VALUES(1,'contrast','ready','',1);
INSERT INTO "counts" VALUES(1,'describe','ready','',1);
INSERT INTO "counts" VALUES(1,'generate','ready','',0);
INSERT INTO "counts" VALUES(1,'locate','ready','',4);
INSERT INTO "counts" VALUES(1,'rewrite','ready','',0);
INSERT INTO "counts" VALUES(2,'rewrite','ready','',2);
CREATE TABLE erasures (
    item_id       INTEGER NOT NULL REFERENCES removals ON DELETE CASCADE,
    image         INTEGER NOT NULL,  -- 1 or 2: the picture that it was taken out of
    number        INTEGER NOT NULL,  -- from 0, the most different first
    x1            INTEGER NOT NULL,
    y1            INTEGER NOT NULL,
    x2            INTEGER NOT NULL,
    y2            INTEGER NOT NULL,
    size_px       INTEGER NOT NULL,  -- the side of the square that the box is measured in
    cosine        REAL NOT NULL,  -- of the pair's two crops
    source        TEXT NOT NULL,
    erased        TEXT NOT NULL,
    seed          INTEGER NOT NULL,
    text          TEXT NOT NULL DEFAULT '',  -- what stands in the box of the source
    scores        TEXT NOT NULL DEFAULT '{}',
    with_image    TEXT NOT NULL DEFAULT '',  -- with the red box; '': not a sample
    without_image TEXT NOT NULL DEFAULT '',
    reason        TEXT NOT NULL DEFAULT '',  -- '': still in
    detail        TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (item_id, image, number)
) STRICT, WITHOUT ROWID;
INSERT INTO "erasures" VALUES(2,1,0,0,0,30,30,100,0.2,'2-1-1.png','2-1-1-e0.png',71,'object of image 1','{"blip_itc_cosine.original":0.9,"blip_itc_cosine.erased":0.1}','2-1-1-with.png','2-1-1-without.png','','');
INSERT INTO "erasures" VALUES(2,2,0,0,0,30,30,100,0.2,'2-1-2.png','2-1-2-e0.png',72,'object of image 2','{"blip_itc_cosine.original":0.9,"blip_itc_cosine.erased":0.1}','2-1-2-with.png','2-1-2-without.png','','');
INSERT INTO "erasures" VALUES(3,1,0,0,0,30,30,100,0.2,'3-1-1.png','3-1-1-e0.png',71,'object of image 1','{"blip_itc_cosine.original":0.9,"blip_itc_cosine.erased":0.8}','','','still_there','blip_itc_cosine.erased 0.8000, bound 0.2');
INSERT INTO "erasures" VALUES(3,2,0,0,0,30,30,100,0.2,'3-1-2.png','3-1-2-e0.png',72,'object of image 2','{"blip_itc_cosine.original":0.9,"blip_itc_cosine.erased":0.8}','','','still_there','blip_itc_cosine.erased 0.8000, bound 0.2');
INSERT INTO "erasures" VALUES(4,1,0,0,0,30,30,100,0.2,'4-1-1.png','4-1-1-e0.png',71,'','{}','','','','');
INSERT INTO "erasures" VALUES(4,2,0,0,0,30,30,100,0.2,'4-1-2.png','4-1-2-e0.png',72,'','{}','','','','');
CREATE TABLE items (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used twice: picture names are made of it
    job_id      INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
    profile_id  INTEGER NOT NULL REFERENCES profiles,
    line        INTEGER NOT NULL,
    source_id   TEXT NOT NULL DEFAULT '',
    caption     TEXT NOT NULL,
    caption_sha BLOB NOT NULL,  -- BLAKE2b, 16 bytes
    stage       TEXT NOT NULL,  -- where it waits, or where it ended
    state       TEXT NOT NULL,
    attempt     INTEGER NOT NULL DEFAULT 1,  -- of rewriting; part of every seed, and the fence against stale results
    crashes     INTEGER NOT NULL DEFAULT 0,  -- workers that it killed alone
    reason      TEXT NOT NULL DEFAULT '',
    detail      TEXT NOT NULL DEFAULT '',
    created_at  REAL NOT NULL,
    updated_at  REAL NOT NULL
) STRICT;
INSERT INTO "items" VALUES(1,1,1,1,'id-1','a cat on mat number 1',X'6C82CF4DF356BD99F091AAAE78C32A29','compare','rejected',1,0,'pair_too_different','clip_image_cosine 0.5000, wanted above 0.9',1000.0,1000.0);
INSERT INTO "items" VALUES(2,1,1,2,'id-2','a cat on mat number 2',X'EFCBDB7042CD4767FB924CB29DDC6AD2','contrast','ready',1,0,'','',1000.0,1000.0);
INSERT INTO "items" VALUES(3,1,1,3,'id-3','a cat on mat number 3',X'96DBE8C932CF0A24F1BE0137360F00AA','describe','ready',1,0,'','',1000.0,1000.0);
INSERT INTO "items" VALUES(4,1,1,4,'id-4','a cat on mat number 4',X'DF38AA6646FBCCF6ACC4F84C29BCAB90','locate','ready',1,0,'','',1000.0,1000.0);
INSERT INTO "items" VALUES(5,1,1,5,'id-5','a cat on mat number 5',X'7A29E144D750622C5DFA039A1CFD94A5','locate','ready',1,0,'','',1000.0,1000.0);
INSERT INTO "items" VALUES(6,1,1,6,'id-6','a cat on mat number 6',X'8C99D42F60D511A5531FF16DE5B40120','locate','ready',1,0,'','',1000.0,1000.0);
INSERT INTO "items" VALUES(7,1,1,7,'id-7','a cat on mat number 7',X'037683F2C8B291DE036DDA9D1FA3C684','locate','ready',1,0,'','',1000.0,1000.0);
INSERT INTO "items" VALUES(8,1,1,8,'id-8','a cat on mat number 8',X'F266C88D279ED66F449F2FC20DCB9551','compare','ready',1,0,'','',1000.0,1000.0);
INSERT INTO "items" VALUES(9,2,1,40,'id-40','a cat on mat number 40',X'4500922078FC0759987C2D1F0E8E255D','rewrite','ready',1,0,'','',1000.0,1000.0);
INSERT INTO "items" VALUES(10,2,1,41,'id-41','a cat on mat number 41',X'89D76E2B10257284FA42D35788A143C7','rewrite','ready',1,0,'','',1000.0,1000.0);
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
    duplicates   INTEGER NOT NULL DEFAULT 0,  -- captions that some item of the same profile already has
    problems     INTEGER NOT NULL DEFAULT 0,  -- records that could not be read
    duplicate_of INTEGER,  -- not a foreign key: a half-read job is dropped and read anew under another id
    error        TEXT NOT NULL DEFAULT ''
) STRICT;
INSERT INTO "jobs" VALUES(1,'first','/inbox/first','8246a78b33f49fc8d453e79bcc92c80535c48473ed636b62b6a2d4d7c483000f',1,0,'active',1000.0,NULL,8,0,0,NULL,'');
INSERT INTO "jobs" VALUES(2,'second','/inbox/second','b1808b15ae1d9382eac1505c59a850087e254c0851f2f4ba670d31844e89f060',1,0,'active',1000.0,NULL,2,0,0,NULL,'');
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "meta" VALUES('instance','faab263d57eb4b73ab8f1426ddbfe210');
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
    answer   TEXT NOT NULL DEFAULT ''  -- the judge's, word for word; '': it was not asked
) STRICT;
INSERT INTO "pairs" VALUES(1,'a dog on mat number 1','["cat"]','["dog"]','1-1-1.png','1-1-2.png',100,100,7,'{"clip_image_cosine":0.5}','');
INSERT INTO "pairs" VALUES(2,'a dog on mat number 2','["cat"]','["dog"]','2-1-1.png','2-1-2.png',100,100,7,'{"clip_image_cosine":0.95}','');
INSERT INTO "pairs" VALUES(3,'a dog on mat number 3','["cat"]','["dog"]','3-1-1.png','3-1-2.png',100,100,7,'{"clip_image_cosine":0.95}','');
INSERT INTO "pairs" VALUES(4,'a dog on mat number 4','["cat"]','["dog"]','4-1-1.png','4-1-2.png',100,100,7,'{"clip_image_cosine":0.95}','');
INSERT INTO "pairs" VALUES(5,'a dog on mat number 5','["cat"]','["dog"]','5-1-1.png','5-1-2.png',100,100,7,'{"clip_image_cosine":0.95}','');
INSERT INTO "pairs" VALUES(6,'a dog on mat number 6','["cat"]','["dog"]','6-1-1.png','6-1-2.png',100,100,7,'{"clip_image_cosine":0.95}','');
INSERT INTO "pairs" VALUES(7,'a dog on mat number 7','["cat"]','["dog"]','7-1-1.png','7-1-2.png',100,100,7,'{"clip_image_cosine":0.95}','');
INSERT INTO "pairs" VALUES(8,'a dog on mat number 8','["cat"]','["dog"]','8-1-1.png','8-1-2.png',100,100,7,'{}','');
CREATE TABLE problems (
    job_id  INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
    line    INTEGER NOT NULL,
    code    TEXT NOT NULL,
    message TEXT NOT NULL
) STRICT;
CREATE TABLE profiles (
    id     INTEGER PRIMARY KEY,
    sha256 TEXT NOT NULL UNIQUE,  -- of the JSON: equal numbers and name are one profile
    name   TEXT NOT NULL,
    json   TEXT NOT NULL
) STRICT;
INSERT INTO "profiles" VALUES(1,'730f4dbea8e398e56cb55b0a6daaafbfc48a086bf4515b25023179cdf55e5896','default','{"name":"default","seed":0,"rewrite":{"prompt":"Here is a sentence: \"{caption}\". Please replace one entity in this sentence with another entity, such as an animal, a vehicle, or a piece of furniture. Please only answer with the replaced sentence.","temperature":0.8,"top_p":0.95,"max_new_tokens":128,"attempts":3,"max_caption_tokens":77},"generate":{"picture_px":1024,"steps":50,"guidance_scale":7.5,"edit":"refine","cross_injection":1.0,"self_injection":0.4,"self_injection_max_tokens":1024,"reweight":{},"word_steps":{}},"pair":{"above":{"value":0.9,"closed":false},"below":{"value":0.98,"closed":false},"decimals":null},"locate":{"segment_px":1024,"segment_confidence":0.05,"segment_iou":0.5,"min_area":0.0025,"max_area":1.0,"crop_cosine_below":{"value":0.85,"closed":false},"noun_kind":"blip_itc_cosine","noun_above":{"value":0.35,"closed":false},"noun_rule":"any","overlap_iou":{"value":0.5,"closed":false},"regions":5},"describe":{"prompt":"Please provide a clear description for this region: {box}.","max_new_tokens":64,"text_cosine_below":{"value":0.85,"closed":false},"match_kind":"blip_itc_cosine","match_above":{"value":0.4,"closed":false},"match_grow_px":5},"contrast":{"prompt":"Analyse the left image and the right image (separated by the black vertical bar). The detail within the red bounding box in the left image is: {left}, while the detail within the red bounding box in the right image is: {right}. What is their difference? Answer with a few concise sentences.","max_new_tokens":128,"bar_px":20,"sides":"random"},"render":{"grow_px":5,"line_px":3,"view_px":336},"removal":{"picture_px":512,"segment_px":512,"segment_confidence":0.1,"segment_iou":0.5,"crop_cosine_below":{"value":0.9,"closed":false},"overlap_iou":{"value":0.5,"closed":false},"targets":3,"prompt":"background, nothing, 8k","strength":0.85,"guidance_scale":0.0,"steps":4,"dilate_px":12,"feather_px":8,"match_kind":"blip_itc_cosine","original_above":{"value":0.35,"closed":false},"erased_below":{"value":0.2,"closed":false},"grow_px":15}}');
CREATE TABLE regions (
    item_id    INTEGER NOT NULL REFERENCES items ON DELETE CASCADE,
    number     INTEGER NOT NULL,  -- from 0, the most different first
    candidate  INTEGER NOT NULL,  -- its place in candidates.boxes
    image      INTEGER NOT NULL,  -- 1 or 2: the picture in which the box was found
    x1         INTEGER NOT NULL,
    y1         INTEGER NOT NULL,
    x2         INTEGER NOT NULL,
    y2         INTEGER NOT NULL,
    scores     TEXT NOT NULL,
    text1      TEXT NOT NULL DEFAULT '',
    text2      TEXT NOT NULL DEFAULT '',
    left_side  INTEGER NOT NULL DEFAULT 0,  -- 1 or 2: the picture that stands on the left
    difference TEXT NOT NULL DEFAULT '',
    reason     TEXT NOT NULL DEFAULT '',  -- '': still in
    detail     TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (item_id, number)
) STRICT, WITHOUT ROWID;
INSERT INTO "regions" VALUES(2,0,0,1,0,0,30,30,'{"clip_image_cosine":0.1,"blip_itc_cosine.noun1":0.9,"blip_itc_cosine.noun2":0.9,"clip_text_cosine":0.3,"blip_itc_cosine.description1":0.9,"blip_itc_cosine.description2":0.9}','a cat','a dog',2,'','','');
INSERT INTO "regions" VALUES(2,1,1,2,50,50,80,80,'{"clip_image_cosine":0.2,"blip_itc_cosine.noun1":0.9,"blip_itc_cosine.noun2":0.9,"clip_text_cosine":0.3,"blip_itc_cosine.description1":0.9,"blip_itc_cosine.description2":0.9}','a cat','a dog',1,'','','');
INSERT INTO "regions" VALUES(3,0,0,1,0,0,30,30,'{"clip_image_cosine":0.1,"blip_itc_cosine.noun1":0.9,"blip_itc_cosine.noun2":0.9}','','',0,'','','');
INSERT INTO "regions" VALUES(3,1,1,2,50,50,80,80,'{"clip_image_cosine":0.2,"blip_itc_cosine.noun1":0.9,"blip_itc_cosine.noun2":0.9}','','',0,'','','');
CREATE TABLE removal_counts (
    job_id INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
    stage  TEXT NOT NULL,
    state  TEXT NOT NULL,
    reason TEXT NOT NULL,
    n      INTEGER NOT NULL,
    PRIMARY KEY (job_id, stage, state, reason)
) STRICT, WITHOUT ROWID;
INSERT INTO "removal_counts" VALUES(1,'erase','failed','broke_erase',1);
INSERT INTO "removal_counts" VALUES(1,'erase','ready','',1);
INSERT INTO "removal_counts" VALUES(1,'erase','rejected','nothing_to_erase',1);
INSERT INTO "removal_counts" VALUES(1,'inspect','ready','',1);
INSERT INTO "removal_counts" VALUES(1,'inspect','rejected','still_there',1);
INSERT INTO "removal_counts" VALUES(1,'inspect','sampled','',1);
CREATE TABLE removals (
    item_id    INTEGER PRIMARY KEY REFERENCES items ON DELETE CASCADE,
    job_id     INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
    attempt    INTEGER NOT NULL,  -- the item's when it passed
    stage      TEXT NOT NULL,
    state      TEXT NOT NULL,
    crashes    INTEGER NOT NULL DEFAULT 0,
    reason     TEXT NOT NULL DEFAULT '',
    detail     TEXT NOT NULL DEFAULT '',
    boxes      TEXT NOT NULL DEFAULT '[]',  -- as in candidates: every box that was found, in the removal's pixels
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL
) STRICT;
INSERT INTO "removals" VALUES(2,1,1,'inspect','sampled',0,'','','[{"image":1,"box":[0,50,30,80],"scores":{"clip_image_cosine":0.99},"reason":"crops_too_similar","detail":"clip_image_cosine 0.9900, wanted below 0.9"},{"image":2,"box":[0,50,30,80],"scores":{"clip_image_cosine":0.99},"reason":"crops_too_similar","detail":"clip_image_cosine 0.9900, wanted below 0.9"},{"image":1,"box":[0,0,30,30],"scores":{"clip_image_cosine":0.2},"reason":"","detail":""},{"image":2,"box":[0,0,30,30],"scores":{"clip_image_cosine":0.2},"reason":"","detail":""}]',1000.0,1000.0);
INSERT INTO "removals" VALUES(3,1,1,'inspect','rejected',0,'still_there','still_there 2','[{"image":1,"box":[0,50,30,80],"scores":{"clip_image_cosine":0.99},"reason":"crops_too_similar","detail":"clip_image_cosine 0.9900, wanted below 0.9"},{"image":2,"box":[0,50,30,80],"scores":{"clip_image_cosine":0.99},"reason":"crops_too_similar","detail":"clip_image_cosine 0.9900, wanted below 0.9"},{"image":1,"box":[0,0,30,30],"scores":{"clip_image_cosine":0.2},"reason":"","detail":""},{"image":2,"box":[0,0,30,30],"scores":{"clip_image_cosine":0.2},"reason":"","detail":""}]',1000.0,1000.0);
INSERT INTO "removals" VALUES(4,1,1,'inspect','ready',0,'','','[{"image":1,"box":[0,50,30,80],"scores":{"clip_image_cosine":0.99},"reason":"crops_too_similar","detail":"clip_image_cosine 0.9900, wanted below 0.9"},{"image":2,"box":[0,50,30,80],"scores":{"clip_image_cosine":0.99},"reason":"crops_too_similar","detail":"clip_image_cosine 0.9900, wanted below 0.9"},{"image":1,"box":[0,0,30,30],"scores":{"clip_image_cosine":0.2},"reason":"","detail":""},{"image":2,"box":[0,0,30,30],"scores":{"clip_image_cosine":0.2},"reason":"","detail":""}]',1000.0,1000.0);
INSERT INTO "removals" VALUES(5,1,1,'erase','rejected',0,'nothing_to_erase','crops_too_similar','[{"image":1,"box":[0,50,30,80],"scores":{"clip_image_cosine":0.99},"reason":"crops_too_similar","detail":"clip_image_cosine 0.9900, wanted below 0.9"},{"image":2,"box":[0,50,30,80],"scores":{"clip_image_cosine":0.99},"reason":"crops_too_similar","detail":"clip_image_cosine 0.9900, wanted below 0.9"}]',1000.0,1000.0);
INSERT INTO "removals" VALUES(6,1,1,'erase','ready',1,'','','[]',1000.0,1000.0);
INSERT INTO "removals" VALUES(7,1,1,'erase','failed',0,'broke_erase','signal 11','[]',1000.0,1000.0);
CREATE TABLE rewrites (
    item_id        INTEGER NOT NULL REFERENCES items ON DELETE CASCADE,
    attempt        INTEGER NOT NULL,
    answer         TEXT,  -- NULL: the caption was too long to ask for
    truncated      INTEGER NOT NULL,
    caption_tokens INTEGER NOT NULL,
    answer_tokens  INTEGER NOT NULL,
    seed           INTEGER NOT NULL,
    reason         TEXT NOT NULL,  -- '': accepted
    detail         TEXT NOT NULL,
    PRIMARY KEY (item_id, attempt)
) STRICT, WITHOUT ROWID;
INSERT INTO "rewrites" VALUES(1,1,'a dog on mat number 1',0,8,8,6887992712756688860,'','');
INSERT INTO "rewrites" VALUES(2,1,'a dog on mat number 2',0,8,8,986385880582145288,'','');
INSERT INTO "rewrites" VALUES(3,1,'a dog on mat number 3',0,8,8,4424316558370997272,'','');
INSERT INTO "rewrites" VALUES(4,1,'a dog on mat number 4',0,8,8,2762413763611447939,'','');
INSERT INTO "rewrites" VALUES(5,1,'a dog on mat number 5',0,8,8,8893149468374255527,'','');
INSERT INTO "rewrites" VALUES(6,1,'a dog on mat number 6',0,8,8,2836836866024650593,'','');
INSERT INTO "rewrites" VALUES(7,1,'a dog on mat number 7',0,8,8,4609469609556667872,'','');
INSERT INTO "rewrites" VALUES(8,1,'a dog on mat number 8',0,8,8,4224862229987009787,'','');
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
CREATE TABLE timings (
    stage   TEXT NOT NULL,
    device  TEXT NOT NULL,
    batches INTEGER NOT NULL,
    items   INTEGER NOT NULL,
    seconds REAL NOT NULL,
    last_at REAL NOT NULL,
    PRIMARY KEY (stage, device)
) STRICT, WITHOUT ROWID;
INSERT INTO "timings" VALUES('compare','cpu:0',2,7,1.0,1000.0);
INSERT INTO "timings" VALUES('describe','cpu:0',1,1,0.5,1000.0);
INSERT INTO "timings" VALUES('erase','cpu:0',2,4,1.0,1000.0);
INSERT INTO "timings" VALUES('generate','cpu:0',1,8,0.5,1000.0);
INSERT INTO "timings" VALUES('inspect','cpu:0',2,2,1.0,1000.0);
INSERT INTO "timings" VALUES('locate','cpu:0',1,2,0.5,1000.0);
INSERT INTO "timings" VALUES('rewrite','cpu:0',1,8,0.5,1000.0);
CREATE TABLE verdicts (
    job_id INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
    stage  TEXT NOT NULL,
    reason TEXT NOT NULL,  -- '': passed
    n      INTEGER NOT NULL,
    PRIMARY KEY (job_id, stage, reason)
) STRICT, WITHOUT ROWID;
INSERT INTO "verdicts" VALUES(1,'describe','',2);
INSERT INTO "verdicts" VALUES(1,'erase','',6);
INSERT INTO "verdicts" VALUES(1,'erase','crops_too_similar',8);
INSERT INTO "verdicts" VALUES(1,'inspect','',2);
INSERT INTO "verdicts" VALUES(1,'inspect','still_there',2);
INSERT INTO "verdicts" VALUES(1,'locate','',4);
INSERT INTO "verdicts" VALUES(1,'rewrite','',8);
CREATE INDEX jobs_content ON jobs (sha256, profile_id);
CREATE INDEX jobs_state ON jobs (state);
CREATE INDEX problems_job ON problems (job_id, line);
CREATE UNIQUE INDEX items_caption ON items (profile_id, caption_sha) WHERE state <> 'cancelled';
CREATE INDEX items_ready ON items (stage, job_id, id, attempt, crashes, state) WHERE state = 'ready';
CREATE INDEX items_failed ON items (reason, job_id) WHERE state = 'failed';
CREATE INDEX items_job ON items (job_id);
CREATE INDEX counts_ready ON counts (stage, job_id) WHERE state = 'ready' AND n > 0;
CREATE TRIGGER items_inserted AFTER INSERT ON items BEGIN
    INSERT INTO counts VALUES (NEW.job_id, NEW.stage, NEW.state, NEW.reason, 1)
        ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER items_moved AFTER UPDATE OF stage, state, reason ON items
WHEN (OLD.stage, OLD.state, OLD.reason) <> (NEW.stage, NEW.state, NEW.reason) BEGIN
    UPDATE counts SET n = n - 1
        WHERE job_id = OLD.job_id AND stage = OLD.stage AND state = OLD.state AND reason = OLD.reason;
    INSERT INTO counts VALUES (NEW.job_id, NEW.stage, NEW.state, NEW.reason, 1)
        ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER items_deleted AFTER DELETE ON items BEGIN
    UPDATE counts SET n = n - 1
        WHERE job_id = OLD.job_id AND stage = OLD.stage AND state = OLD.state AND reason = OLD.reason;
END;
CREATE INDEX samples_job ON samples (job_id, id);
CREATE INDEX removals_ready ON removals (stage, job_id, item_id, attempt, crashes) WHERE state = 'ready';
CREATE INDEX removals_job ON removals (job_id, state, item_id);
CREATE TRIGGER removals_inserted AFTER INSERT ON removals BEGIN
    INSERT INTO removal_counts VALUES (NEW.job_id, NEW.stage, NEW.state, NEW.reason, 1)
        ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER removals_moved AFTER UPDATE OF stage, state, reason ON removals
WHEN (OLD.stage, OLD.state, OLD.reason) <> (NEW.stage, NEW.state, NEW.reason) BEGIN
    UPDATE removal_counts SET n = n - 1
        WHERE job_id = OLD.job_id AND stage = OLD.stage AND state = OLD.state AND reason = OLD.reason;
    INSERT INTO removal_counts VALUES (NEW.job_id, NEW.stage, NEW.state, NEW.reason, 1)
        ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER removals_deleted AFTER DELETE ON removals BEGIN
    UPDATE removal_counts SET n = n - 1
        WHERE job_id = OLD.job_id AND stage = OLD.stage AND state = OLD.state AND reason = OLD.reason;
END;
UPDATE sqlite_sequence SET seq=2 WHERE name='jobs';
UPDATE sqlite_sequence SET seq=10 WHERE name='items';
COMMIT;
PRAGMA application_id = 1231897705;
PRAGMA user_version = 3;
