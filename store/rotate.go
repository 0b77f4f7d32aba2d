package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strconv"

	"homeroom/datadir"
)

// Rotate seals everything in a data folder that no server uses with a new
// key. It may be cut off at any moment: what is sealed with which key stands in
// each column, the older key is kept in the database, sealed with the newer, and
// the next rotation does the rest.
func Rotate(ctx context.Context, out io.Writer, folder string, from, to KeySource) error {
	path := filepath.Join(folder, DatabaseFile)
	if err := errors.Join(guard(path), checkHeader(path)); err != nil {
		return err
	}
	lock, err := datadir.Lock(folder)
	if err != nil {
		return err
	}
	err = rotateLocked(ctx, out, path, from, to)
	return errors.Join(err, lock.Release())
}

func rotateLocked(ctx context.Context, out io.Writer, path string, from, to KeySource) error {
	if err := inspect(path); err != nil {
		return fmt.Errorf("opening the database %s: %w", path, err)
	}
	rows, err := Keys(path)
	if err != nil {
		return fmt.Errorf("reading which key the database %s needs: %w", path, explainDamage(err))
	}
	if len(rows) == 0 {
		return fmt.Errorf("the database %s is not sealed yet; start the server once, then change its key", path)
	}
	interrupted := len(rows) > 1 || !rows[0].clean
	if err := from.mayChange(to); err != nil {
		return err
	}
	if interrupted {
		fmt.Fprintln(out, "finishing a change of the key that was interrupted")
		from = from.newer(rows, to)
		to = from
	}
	keys, err := from.unlock(rows)
	if err != nil {
		return err
	}
	if _, err := from.promote(keys[len(keys)-1]); err != nil {
		return err
	}
	return withRewriter(path, func(db *sql.DB) error {
		if err := migrate(db); err != nil {
			return err
		}
		if !interrupted {
			next, err := to.begin(db, keys[0])
			if err != nil {
				return err
			}
			keys = append(keys, next)
		}
		return finishRotation(ctx, out, db, keys, to)
	})
}

// mayChange refuses changes that a program cannot make.
func (src KeySource) mayChange(to KeySource) error {
	switch {
	case src.fixed || to.fixed:
		return errors.New("the key is one of systemd's credentials, which only you can change: have server.key name a copy of it in a file, change that, and give it to systemd")
	case src.Path != "" && to.Path != "" && src.Path != to.Path:
		return errors.New("to have the key in another place, move its file and have server.key name it; -to is for changing to a passphrase or away from it")
	}
	return nil
}

// newer is where the newest key of an interrupted change comes from: from where
// the change was to lead, if it was to lead elsewhere.
func (src KeySource) newer(rows []Key, to KeySource) KeySource {
	last := rows[len(rows)-1]
	if (len(last.salt) == 0) == (to.Path != "") {
		return to
	}
	return src
}

// begin makes the new key and has the database know both.
func (src KeySource) begin(db *sql.DB, old masterKey) (next masterKey, err error) {
	var row Key
	if src.Path == "" {
		next, row, err = src.newPassphrase(old.number + 1)
	} else {
		next = masterKey{old.number + 1, random(masterBytes), old.derive}
		if row, err = next.row(); err == nil {
			err = src.write(src.next(), next.secret)
		}
	}
	if err != nil {
		return next, err
	}
	wrapped, err := next.wrap(old)
	if err != nil {
		return next, err
	}
	return next, inTransaction(db, func(tx *sql.Tx) error {
		if _, err := tx.Exec("UPDATE keys SET wrapped = ? WHERE number = ?", wrapped, old.number); err != nil {
			return err
		}
		return insertKeyRow(tx, row)
	})
}

// inTransaction does all of something, or nothing.
func inTransaction(db *sql.DB, do func(*sql.Tx) error) error {
	tx, err := db.Begin()
	if err != nil {
		return err
	}
	if err := do(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// finishRotation does what is left once the database knows the new key.
func finishRotation(ctx context.Context, out io.Writer, db *sql.DB, keys []masterKey, to KeySource) error {
	newest := keys[len(keys)-1]
	kept, err := to.promote(newest)
	if err != nil {
		return err
	}
	ring, err := newKeyRing(keys)
	if err != nil {
		return err
	}
	records := 0
	for k := range Kinds {
		n, err := resealKind(ctx, db, k, &sealer{ring: ring})
		if err != nil {
			return fmt.Errorf("sealing the %ss with the new key: %w", k, err)
		}
		records += n
	}
	err = inTransaction(db, func(tx *sql.Tx) error {
		if _, err := tx.Exec("DELETE FROM keys WHERE number < ?", newest.number); err != nil {
			return err
		}
		_, err := tx.Exec("UPDATE keys SET clean = 0")
		return err
	})
	if err == nil {
		err = compact(db)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%d records are sealed with the new key, number %d\n", records, newest.number)
	if kept != "" {
		fmt.Fprintf(out, "the old key is kept as %s: backups from before need it; delete it with the last of them\n", kept)
	}
	return nil
}

// promote puts a new key, if it still waits, in the place of the old one, which it
// keeps under its number.
func (src KeySource) promote(newest masterKey) (kept string, err error) {
	if src.Path == "" {
		return "", nil
	}
	kept = src.Path + "." + strconv.FormatUint(uint64(newest.number-1), 10)
	old, err := src.read(src.Path)
	if err == nil && string(old) != string(newest.secret) {
		err = src.keep(kept, old)
	} else if err == nil || errors.Is(err, fs.ErrNotExist) {
		if _, gone := src.read(kept); gone != nil {
			kept = ""
		}
		if err == nil {
			return kept, nil
		}
		err = nil
	}
	if err == nil {
		err = src.reach(func() error { return datadir.Rename(src.next(), src.Path) })
	}
	if err != nil {
		return "", fmt.Errorf("putting the new key in its place: %w", err)
	}
	return kept, nil
}

// keep keeps an old key under another name.
func (src KeySource) keep(path string, old []byte) error {
	file, err := src.open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return src.write(path, old)
	}
	if err != nil {
		return err
	}
	defer file.Close()
	there, err := io.ReadAll(io.LimitReader(file, masterBytes+1))
	if err == nil && string(there) != string(old) {
		return fmt.Errorf("%s is in the way, where the old key is to be kept; move it, then do this again", path)
	}
	return err
}

// resealKind seals what is sealed with an older key with the newest, a page in
// each transaction.
func resealKind(ctx context.Context, db *sql.DB, k Kind, seal *sealer) (records int, err error) {
	err = eachPage(db, k, func(page []Record) error {
		if ctx.Err() != nil {
			return errors.New("interrupted; do it again to finish it")
		}
		records += len(page)
		var old []Record
		for _, r := range page {
			if r.isCurrent(seal.ring.current) {
				continue
			}
			if err := seal.open(&r); err != nil {
				return err
			}
			old = append(old, r)
		}
		if len(old) == 0 {
			return nil
		}
		return inTransaction(db, func(tx *sql.Tx) error { return storeSealed(tx, k, old, seal) })
	})
	return records, err
}

// isCurrent reports whether all of a record is sealed with a key, in the newest format,
// already.
func (r Record) isCurrent(number uint32) bool {
	for _, sealed := range [][]byte{r.Head, r.Body} {
		with, err := sealedWith(sealed)
		if sealed != nil && (err != nil || with != number || sealed[0] != sealFormat) {
			return false
		}
	}
	return true
}
