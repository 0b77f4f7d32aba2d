package store

import (
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
)

// openKeys finds the keys of a database that no server uses, and seals what is in
// it if that was never done. Where a key is missing or wrong, nothing changes.
func openKeys(path string, src KeySource) (*keyRing, error) {
	rows, err := Keys(path)
	if err != nil {
		return nil, fmt.Errorf("reading which key the database %s needs: %w", path, explainDamage(err))
	}
	if len(rows) == 0 {
		return sealFirst(path, src)
	}
	keys, err := src.unlock(rows)
	if err != nil {
		return nil, err
	}
	if len(rows) > 1 {
		slog.Warn("a change of the key was interrupted; stop the server and do `homeroom key rotate` to finish it")
	} else if !rows[0].clean {
		if err = withRewriter(path, compact); isDiskFull(err) {
			slog.Warn("the disk is full: what a change of the key left in the database is cleared by a later start", "error", err)
			err = nil
		}
	}
	if err != nil {
		return nil, err
	}
	return newKeyRing(keys)
}

// sealFirst seals what a database holds with its first key. A power cut leaves
// it as it was, or sealed; and then the next start cleans up.
func sealFirst(path string, src KeySource) (*keyRing, error) {
	key, row, err := src.first()
	if err != nil {
		return nil, err
	}
	ring, err := newKeyRing([]masterKey{key})
	if err != nil {
		return nil, err
	}
	err = withRewriter(path, func(db *sql.DB) error {
		if err := migrate(db); err != nil {
			return err
		}
		var given int64 // numbers, ever
		if err := db.QueryRow("SELECT account + room + grp + message FROM state").Scan(&given); err != nil {
			return err
		}
		row.clean = given == 0
		if err := sealAll(db, ring, row); err != nil || row.clean {
			return err
		}
		slog.Info("what is stored is sealed now")
		return compact(db)
	})
	return ring, err
}

// sealAll seals all records and notes the key, in one transaction.
func sealAll(db *sql.DB, ring *keyRing, row Key) error {
	return inTransaction(db, func(tx *sql.Tx) error {
		seal := &sealer{ring: ring}
		for k := range Kinds {
			err := eachPage(tx, k, func(page []Record) error { return storeSealed(tx, k, page, seal) })
			if err != nil {
				return fmt.Errorf("sealing the %ss: %w", k, err)
			}
		}
		return insertKeyRow(tx, row)
	})
}

func insertKeyRow(tx *sql.Tx, r Key) error {
	_, err := tx.Exec("INSERT INTO keys VALUES (?, ?, zeroblob(0), coalesce(?, zeroblob(0)), ?, ?, ?, ?)",
		r.Number, r.mark, r.salt, r.cost.passes, r.cost.memory, r.cost.lanes, r.clean)
	return err
}

// withRewriter runs what rewrites much of a database that no server uses.
func withRewriter(path string, rewrite func(*sql.DB) error) error {
	if err := renewLog(path); err != nil {
		return err
	}
	db, err := openURI(path, url.Values{"_pragma": {
		"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)", "cache_size(-2000)",
		"temp_store(FILE)", "trusted_schema(OFF)", "secure_delete(ON)", // a copy of it all might not fit into memory
	}})
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	err = rewrite(db)
	if !isSyncFailure(err) { // else closing would write
		err = errors.Join(err, db.Close())
	}
	if err != nil {
		return fmt.Errorf("sealing the database %s: %w", path, err)
	}
	return nil
}

// compact writes a database anew, so that nothing of what was replaced in it is
// left in its free space or its log.
func compact(db *sql.DB) error {
	if _, err := db.Exec("VACUUM"); err != nil {
		return fmt.Errorf("clearing the free space (there must be space for a copy of the database): %w", err)
	}
	var busy, logged, moved int
	if err := db.QueryRow("PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &logged, &moved); err != nil {
		return fmt.Errorf("clearing the log: %w", err)
	}
	if busy != 0 {
		return errors.New("clearing the log: another program reads the database; end it first")
	}
	_, err := db.Exec("UPDATE keys SET clean = 1")
	return err
}

// querier is a database or a transaction.
type querier interface {
	Query(query string, args ...any) (*sql.Rows, error)
	QueryRow(query string, args ...any) *sql.Row
}

// walkSize is how many records are in memory while all are gone through.
const walkSize = 100

// hasTable reports whether a database has a table for a kind; one of an earlier
// version may not.
func hasTable(q querier, k Kind) (there bool, err error) {
	err = q.QueryRow("SELECT count(*) > 0 FROM sqlite_master WHERE type = 'table' AND name = ?", k.table()).Scan(&there)
	return there, err
}

// eachPage goes through all records of a kind as they are stored.
func eachPage(q querier, k Kind, each func([]Record) error) error {
	if there, err := hasTable(q, k); err != nil || !there {
		return err
	}
	after := int64(-1 << 63)
	for {
		page, err := pageOf(q, k, after)
		if err != nil || len(page) == 0 {
			return err
		}
		after = page[len(page)-1].ID
		if err := each(page); err != nil {
			return err
		}
	}
}

// beside is the columns of group, parent and end, which are authenticated with what is
// sealed beside them; 0 where a kind has none.
func (k Kind) beside() string {
	switch k {
	case Room, Group:
		return "0, owner, ends"
	case Message:
		return "grp, parent, ends"
	case Ban:
		return "0, 0, ends"
	}
	return "0, 0, 0"
}

// pageOf reads the next records of a kind, as they are stored.
func pageOf(q querier, k Kind, after int64) (page []Record, err error) {
	body := "NULL"
	if k.hasBody() {
		body = "body"
	}
	rows, err := q.Query("SELECT id, "+k.beside()+", head, "+body+" FROM "+k.table()+" WHERE id > ? ORDER BY id LIMIT ?", after, walkSize)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		r := Record{Kind: k}
		if err := rows.Scan(&r.ID, &r.Group, &r.Parent, &r.Ends, &r.Head, &r.Body); err != nil {
			return nil, err
		}
		r.Head = append([]byte{}, r.Head...) // SQL's empty is Go's nil
		if k.hasBody() {
			r.Body = append([]byte{}, r.Body...)
		}
		page = append(page, r)
	}
	return page, rows.Err()
}

// storeSealed seals records and puts them in the place of what is stored.
func storeSealed(tx *sql.Tx, k Kind, page []Record, seal *sealer) error {
	set := "head = ?2"
	if k.hasBody() {
		set += ", body = ?3"
	}
	stmt, err := tx.Prepare("UPDATE " + k.table() + " SET " + set + " WHERE id = ?1")
	if err != nil {
		return err
	}
	defer stmt.Close()
	for i := range page {
		head, body := seal.record(&page[i])
		args := []any{page[i].ID, head, body}
		if !k.hasBody() {
			args = args[:2]
		}
		if _, err := stmt.Exec(args...); err != nil {
			return err
		}
	}
	return nil
}
