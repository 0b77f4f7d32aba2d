package store

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	_ "modernc.org/sqlite"

	"homeroom/datadir"
)

const DatabaseFile = "homeroom.db"

// migrations lead from each version of the schema to the next; PRAGMA
// user_version says how many a database has seen. Never change one that was
// released: append.
var migrations = []string{
	// 1: what a database starts as. Times are on the server's own clock, in ms.
	`CREATE TABLE state (
		one INTEGER PRIMARY KEY CHECK (one = 1),
		account INTEGER NOT NULL, room INTEGER NOT NULL, grp INTEGER NOT NULL, message INTEGER NOT NULL,
		status INTEGER NOT NULL, clock INTEGER NOT NULL, wall INTEGER NOT NULL, rounds INTEGER NOT NULL);
	INSERT INTO state VALUES (1, 0, 0, 0, 0, 0, 0, 0, 0);
	CREATE TABLE accounts (id INTEGER PRIMARY KEY, head BLOB NOT NULL, body BLOB NOT NULL);
	CREATE TABLE rooms (id INTEGER PRIMARY KEY, owner INTEGER NOT NULL, ends INTEGER NOT NULL, head BLOB NOT NULL);
	CREATE TABLE groups (id INTEGER PRIMARY KEY, owner INTEGER NOT NULL, ends INTEGER NOT NULL,
		messages INTEGER NOT NULL, tops INTEGER NOT NULL, deleted INTEGER NOT NULL, head BLOB NOT NULL);
	CREATE TABLE messages (id INTEGER PRIMARY KEY, grp INTEGER NOT NULL, parent INTEGER NOT NULL,
		replies INTEGER NOT NULL, ends INTEGER NOT NULL, head BLOB NOT NULL, body BLOB NOT NULL);
	CREATE INDEX messages_group ON messages (grp, id);
	CREATE INDEX messages_parent ON messages (parent, id) WHERE parent > 0;
	CREATE INDEX messages_top ON messages (grp, id) WHERE parent = 0;
	CREATE INDEX messages_ends ON messages (ends, grp, parent);`,
	// 2: heads and bodies are sealed (reseal.go does it), with the newest of these keys.
	`CREATE TABLE keys (number INTEGER PRIMARY KEY, mark BLOB NOT NULL, wrapped BLOB NOT NULL,
		salt BLOB NOT NULL, passes INTEGER NOT NULL, memory INTEGER NOT NULL, lanes INTEGER NOT NULL,
		clean INTEGER NOT NULL);`,
	// 3: what made-up salts come from; empty until the server is started.
	`ALTER TABLE state ADD COLUMN secret BLOB NOT NULL DEFAULT X'';`,
	// 4: when accounts were last here (Unix seconds), and bans.
	`ALTER TABLE accounts ADD COLUMN seen INTEGER NOT NULL DEFAULT 0;
	ALTER TABLE state ADD COLUMN ban INTEGER NOT NULL DEFAULT 0;
	CREATE TABLE bans (id INTEGER PRIMARY KEY, ends INTEGER NOT NULL, head BLOB NOT NULL);`,
	// 5: a message is in one index of its group, not in two. (An index has the id behind
	// what it names.)
	`DROP INDEX messages_group; DROP INDEX messages_top; DROP INDEX messages_parent;
	CREATE INDEX messages_tops ON messages (grp) WHERE parent = 0;
	CREATE INDEX messages_answers ON messages (grp) WHERE parent > 0;
	CREATE INDEX messages_replies ON messages (parent) WHERE parent > 0;`,
	// 6: what is sealed from now on has format 2 (seal.go), which older programs cannot open.
	`SELECT 1;`,
	// 7: whose share of the disk rooms, groups and messages count in, and how much of it a
	// message takes.
	`ALTER TABLE rooms ADD COLUMN share INTEGER NOT NULL DEFAULT 0;
	ALTER TABLE groups ADD COLUMN share INTEGER NOT NULL DEFAULT 0;
	ALTER TABLE messages ADD COLUMN share INTEGER NOT NULL DEFAULT 0;
	ALTER TABLE messages ADD COLUMN size INTEGER NOT NULL DEFAULT 0;
	CREATE INDEX messages_shares ON messages (share, size) WHERE share <> 0;`,
}

// SQLite is the store in one SQLite database (WAL, synchronous=FULL): one
// writer goroutine, a few reader goroutines, each with a connection.
type SQLite struct {
	path    string
	db      *sql.DB
	ring    *keyRing
	clock   Clock
	Values  Values
	reads   chan readJob
	readers sync.WaitGroup
	queue   queue
	writer  *writer
	lists   listSet
	index   int // the open file of the log's index; -1: none
}

// Clock tells the time on which records end, and the time of day to save beside it;
// both in milliseconds, the second since 1970. Now never goes back.
type Clock struct{ Now, Wall func() int64 }

// Values are kept for the store's user, the same in all of the database's life.
type Values struct {
	Rounds int64  // of password hashing
	Secret []byte // what made-up salts come from
}

// Options is what a store needs to know of the settings.
type Options struct {
	Folder   string
	Key      KeySource
	Periodic bool
	Readers  int
	Clock    func(saved, savedWall int64) Clock // continues from what was saved; 0: never
	Fill     func(*Values)                      // makes those values that are not there yet
	Lost     func(Record)                       // hears of an acknowledged record that could not be stored after all
	Failed   func(error)                        // hears, once, of a failed sync, after which nothing is stored any more; it must not wait
}

// OpenSQLite opens the database of a data folder, makes a new one where there is
// none, and brings an older one up to date. It refuses, and leaves untouched,
// what is damaged or was written by a newer program.
func OpenSQLite(o Options) (*SQLite, error) {
	path := filepath.Join(o.Folder, DatabaseFile)
	if err := guard(path); err != nil {
		return nil, err
	}
	if err := useSpare(o.Folder); err != nil {
		return nil, err
	}
	if err := ensureDatabase(path); err != nil {
		return nil, err
	}
	if err := inspect(path); err != nil {
		return nil, fmt.Errorf("opening the database %s: %w", path, err)
	}
	ring, err := openKeys(path, o.Key)
	if err != nil {
		return nil, err
	}
	if err := renewLog(path); err != nil {
		return nil, err
	}
	db, err := openDatabase(path)
	if err != nil {
		return nil, err
	}
	st := &SQLite{path: path, db: db, ring: ring, reads: make(chan readJob)}
	err = st.start(o)
	if err == nil {
		st.fillIndex()
		keepSpare(o.Folder, spareSize)
		return st, nil
	}
	close(st.reads)
	err = fmt.Errorf("opening the database %s: %w", path, err)
	if isSyncFailure(err) {
		return nil, err // closing would write
	}
	return nil, errors.Join(err, db.Close())
}

// start reads the state and starts the goroutines.
func (st *SQLite) start(o Options) error {
	if err := migrate(st.db); err != nil {
		return err
	}
	w, err := newWriter(st.db, o)
	if err != nil {
		return err
	}
	w.seal.ring = st.ring
	o.Fill(&w.saved.values)
	st.Values, st.clock = w.saved.values, o.Clock(w.saved.clock, w.saved.wall)
	if err := w.start(&st.queue, st.clock, &st.lists, o); err != nil {
		return errors.Join(err, w.own.close())
	}
	st.writer = w
	// SQLite does not tell when it could not bring the log's name to the disk.
	if err := datadir.Sync(o.Folder); err != nil {
		return errors.Join(fmt.Errorf("saving the data folder: %w", err), w.stop())
	}
	for range o.Readers {
		r, err := newReader(st.db)
		if err != nil {
			return errors.Join(err, w.stop())
		}
		r.seal.ring = st.ring
		st.readers.Go(func() { r.loop(st.reads) })
	}
	return nil
}

// ensureDatabase makes a new database if there is none, under another name
// first, so that a database under its own name is always a whole one.
func ensureDatabase(path string) error {
	err := checkHeader(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if existing(path + restoring) {
		return fmt.Errorf("a restore into %s was interrupted; do it again, or delete %s", filepath.Dir(path), path+restoring)
	}
	if leftover, err := os.Stat(path + "-wal"); err == nil && leftover.Size() > 0 {
		return fmt.Errorf("the database %s is gone but its %s-wal is there; put the database back, or move that file away", path, path)
	}
	fresh := path + ".new"
	for _, old := range []string{fresh, fresh + "-wal", fresh + "-shm"} {
		if err := os.Remove(old); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("making the database: %w", err)
		}
	}
	if err := setPageSize(fresh); err != nil {
		return fmt.Errorf("making the database %s: %w", path, err)
	}
	db, err := openDatabase(fresh)
	if err != nil {
		return err
	}
	if err := errors.Join(migrate(db), foldAll(db), db.Close()); err != nil {
		return fmt.Errorf("making the database %s: %w", path, err)
	}
	if err := datadir.Rename(fresh, path); err != nil {
		return fmt.Errorf("making the database: %w", err)
	}
	return nil
}

// pageSize is the unit in which SQLite writes, in bytes. A quarter of the usual one:
// most of what a post writes are pages that the one before wrote too.
const pageSize = 1024

// setPageSize begins a database with pages of that size; the first thing that is
// stored makes it last.
func setPageSize(path string) error {
	db, err := openURI(path, nil)
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	_, err = db.Exec(fmt.Sprintf("PRAGMA page_size = %d; PRAGMA journal_mode = WAL", pageSize))
	return errors.Join(err, db.Close())
}

// checkHeader looks at a database file before SQLite does: it must be there, be
// SQLite's (https://www.sqlite.org/fileformat.html section 1.3) and not newer
// than this program.
func checkHeader(path string) error {
	return headerOf(path, func() (*os.File, error) { return datadir.Open(path, os.O_RDONLY) })
}

// guard refuses a database in a data folder whose name, or one that SQLite puts beside
// it, leads elsewhere: SQLite opens them by name.
func guard(path string) error {
	return datadir.Check(path, path+"-wal", path+"-shm", path+"-journal")
}

// headerOf checks the header of the file that open opens.
func headerOf(path string, open func() (*os.File, error)) error {
	f, err := open()
	if err != nil {
		return fmt.Errorf("cannot open the database: %w", err)
	}
	defer f.Close()
	header := make([]byte, 100)
	_, err = io.ReadFull(f, header)
	if short := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF); err != nil && !short {
		return fmt.Errorf("cannot read the database: %w", err)
	}
	if err != nil || string(header[:16]) != "SQLite format 3\x00" {
		return fmt.Errorf("the database %s is damaged: it has no SQLite header; move it away or restore a backup", path)
	}
	return checkVersion(path, int(binary.BigEndian.Uint32(header[60:])))
}

func checkVersion(path string, version int) error {
	if version > len(migrations) {
		return fmt.Errorf("the database %s is of a newer program (version %d, this one knows %d); use that program, or another folder",
			path, version, len(migrations))
	}
	return nil
}

// openDatabase opens a database with the settings that every connection has.
func openDatabase(path string) (*sql.DB, error) {
	return openURI(path, url.Values{"_pragma": {
		"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)", "wal_autocheckpoint(0)",
		"cache_size(-2000)", "temp_store(MEMORY)", "trusted_schema(OFF)",
	}})
}

func openURI(path string, query url.Values) (*sql.DB, error) {
	uri := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: query.Encode()}
	db, err := sql.Open("sqlite", uri.String())
	if err != nil {
		return nil, fmt.Errorf("opening the database %s: %w", path, err)
	}
	return db, nil
}

// quickCheckPages is the size, in pages, up to which a database is checked
// whole at start; a larger one would hold up the start of a small machine.
const quickCheckPages = 32 << 20 / pageSize

// openUntouched opens a database that no server uses, with what a killed server
// left beside it, and changes neither.
func openUntouched(path string) (*sql.DB, error) {
	how := url.Values{"mode": {"ro"}, "_pragma": {"trusted_schema(OFF)"}}
	if log, err := os.Stat(path + "-wal"); errors.Is(err, fs.ErrNotExist) || err == nil && log.Size() == 0 {
		how.Set("immutable", "1") // so that SQLite makes no files of its own
	}
	return openURI(path, how)
}

// inspect looks at a database without changing it: it must be whole and not
// newer than this program.
func inspect(path string) error {
	db, err := openUntouched(path)
	if err != nil {
		return err
	}
	defer db.Close()
	var version, pages int
	err = errors.Join(db.QueryRow("PRAGMA user_version").Scan(&version), db.QueryRow("PRAGMA page_count").Scan(&pages))
	if err != nil {
		return explainDamage(err)
	}
	if err := checkVersion(path, version); err != nil {
		return err
	}
	if err := checkSchema(db, version); err != nil || pages > quickCheckPages {
		return err
	}
	var result string
	if err := db.QueryRow("PRAGMA quick_check(1)").Scan(&result); err != nil {
		return explainDamage(err)
	}
	if result != "ok" {
		return explainDamage(errors.New(result))
	}
	return nil
}

// migrate brings a database's schema up to date, in one transaction: a power cut
// leaves the old version or the new one.
func migrate(db *sql.DB) error {
	var version int
	if err := db.QueryRow("PRAGMA user_version").Scan(&version); err != nil {
		return explainDamage(err)
	}
	if version == len(migrations) {
		return nil
	}
	tx, err := db.BeginTx(context.Background(), nil)
	if err != nil {
		return err
	}
	for _, step := range migrations[version:] {
		if _, err := tx.Exec(step); err != nil {
			return errors.Join(fmt.Errorf("updating the schema: %w", err), tx.Rollback())
		}
	}
	if _, err := tx.Exec(fmt.Sprintf("PRAGMA user_version = %d", len(migrations))); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// explainDamage says what to do about a database that SQLite cannot read.
func explainDamage(err error) error {
	return fmt.Errorf("it is damaged or cannot be read; nothing was changed; move it away or restore a backup (%w)", err)
}

// statements is a connection of its own with what was prepared on it.
type statements struct {
	conn *sql.Conn
	all  []*sql.Stmt
}

// prepareOn takes a connection and prepares statements on it.
func prepareOn(db *sql.DB, texts map[**sql.Stmt]string) (*statements, error) {
	ctx := context.Background()
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("opening a connection to the database: %w", err)
	}
	s := &statements{conn: conn}
	for stmt, text := range texts {
		if *stmt, err = conn.PrepareContext(ctx, text); err != nil {
			return nil, errors.Join(fmt.Errorf("preparing %q: %w", text, err), s.close())
		}
		s.all = append(s.all, *stmt)
	}
	return s, nil
}

// close gives everything back; a statement left open would keep the database's
// write-ahead log from being folded in at the end.
func (s *statements) close() error {
	var err error
	for _, stmt := range s.all {
		err = errors.Join(err, stmt.Close())
	}
	return errors.Join(err, s.conn.Close())
}

// explain says what failed, and marks the errors that the store promises.
func explain(doing string, err error) error {
	switch {
	case err == nil || errors.Is(err, ErrNotFound) || errors.Is(err, ErrBroken):
		return err
	case isDiskFull(err):
		return fmt.Errorf("%s: %w: %w", doing, ErrFull, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// Load runs at start, before anything changes.
func (st *SQLite) Load(k Kind, each func(Record) error) error {
	query := map[Kind]string{
		Account: "SELECT id, 0, seen, 0, head, 0, length(head) + length(body) FROM accounts",
		Room:    "SELECT id, owner, ends, 0, head, share, length(head) FROM rooms",
		Ban:     "SELECT id, 0, ends, 0, head, 0, length(head) FROM bans",
		Group:   "SELECT id, owner, ends, messages, CASE deleted WHEN 0 THEN head END, share, length(head) FROM groups ORDER BY id",
	}[k]
	rows, err := st.db.Query(query)
	if err != nil {
		return fmt.Errorf("reading the %ss: %w", k, err)
	}
	defer rows.Close()
	seal := sealer{ring: st.ring}
	for rows.Next() {
		r := Record{Kind: k}
		if err := rows.Scan(&r.ID, &r.Parent, &r.Ends, &r.Total, &r.Head, &r.Share, &r.Stored); err != nil {
			return fmt.Errorf("reading the %ss: %w", k, err)
		}
		if err := seal.open(&r); err != nil {
			return err
		}
		if err := each(r); err != nil {
			return fmt.Errorf("reading %s %d: %w", k, r.ID, err)
		}
	}
	return rows.Err()
}

// Shares runs at start, before anything changes.
func (st *SQLite) Shares() (map[int64]int64, error) {
	shares := map[int64]int64{}
	rows, err := st.db.Query("SELECT share, sum(size) FROM messages INDEXED BY messages_shares WHERE share <> 0 GROUP BY share")
	if err != nil {
		return nil, fmt.Errorf("reading whose the messages are: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var share, size int64
		if err := rows.Scan(&share, &size); err != nil {
			return nil, fmt.Errorf("reading whose the messages are: %w", err)
		}
		shares[share] = size
	}
	return shares, rows.Err()
}

// Close saves what waits and closes the database.
func (st *SQLite) Close() error {
	err := st.writer.stop()
	close(st.reads)
	st.readers.Wait()
	if st.writer.broken != nil {
		return err // closing would write; the end of the process closes it as well
	}
	err = errors.Join(err, st.db.Close())
	if st.index >= 0 {
		_ = syscall.Close(st.index) // nothing was written to it
	}
	keepSpare(filepath.Dir(st.path), 0) // in the place of the log
	return err
}
