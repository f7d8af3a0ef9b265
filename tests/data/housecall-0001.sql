BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE answers (
	id VARCHAR(40) NOT NULL, 
	request_id VARCHAR(64) NOT NULL, 
	kind VARCHAR(10) NOT NULL, 
	session_id VARCHAR(40), 
	turn INTEGER, 
	created_at DATETIME NOT NULL, 
	finish_reason VARCHAR(20), 
	text_sha256 VARCHAR(64) NOT NULL, 
	model JSON NOT NULL, 
	lineage JSON NOT NULL, 
	guard JSON NOT NULL, 
	guard_version VARCHAR(100) NOT NULL, 
	sampling JSON NOT NULL, 
	usage JSON NOT NULL, 
	timings JSON NOT NULL, 
	context JSON, 
	PRIMARY KEY (id), 
	FOREIGN KEY(session_id) REFERENCES sessions (id) ON DELETE CASCADE
);
INSERT INTO "answers" VALUES('ans_00000000000000000000000000000001','req_1','chat','ses_00000000000000000000000000000001',1,'2026-11-24 15:39:43.874355','stop','0000000000000000000000000000000000000000000000000000000000000000','{"name": "demo", "format": "gguf-q8_0"}','[{"kind": "variant", "sha256": "1"}]','{"level": "none"}','1','{"seed": 1}','{"prompt_tokens": 3}','{"ttft_ms": null}',NULL);
CREATE TABLE messages (
	id INTEGER NOT NULL, 
	session_id VARCHAR(40) NOT NULL, 
	turn INTEGER NOT NULL, 
	role VARCHAR(10) NOT NULL, 
	content TEXT NOT NULL, 
	status VARCHAR(10) NOT NULL, 
	created_at DATETIME NOT NULL, 
	answer_id VARCHAR(40), 
	PRIMARY KEY (id), 
	CONSTRAINT uq_messages_turn UNIQUE (session_id, turn, role), 
	FOREIGN KEY(session_id) REFERENCES sessions (id) ON DELETE CASCADE
);
INSERT INTO "messages" VALUES(1,'ses_00000000000000000000000000000001',1,'user','I have a cough','complete','2026-11-24 15:39:43.865827',NULL);
INSERT INTO "messages" VALUES(2,'ses_00000000000000000000000000000001',1,'assistant','Since when?','complete','2026-11-24 15:39:43.874414','ans_00000000000000000000000000000001');
INSERT INTO "messages" VALUES(3,'ses_00000000000000000000000000000001',2,'user','Since Monday','complete','2026-11-24 15:39:43.879559',NULL);
CREATE TABLE sessions (
	id VARCHAR(40) NOT NULL, 
	title VARCHAR(80) NOT NULL, 
	system TEXT, 
	model VARCHAR(200) NOT NULL, 
	created_at DATETIME NOT NULL, 
	updated_at DATETIME NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "sessions" VALUES('ses_00000000000000000000000000000001','I have a cough',NULL,'demo','2026-11-24 15:39:43.865827','2026-11-24 15:39:43.879559');
CREATE INDEX ix_sessions_updated_at ON sessions (updated_at, id);
CREATE INDEX ix_answers_session_id ON answers (session_id);
COMMIT;
