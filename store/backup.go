package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"homeroom/datadir"
)

// openForReading opens the database of a folder for reading, whether a server uses it
// or not. Where none does, none can start until release.
func openForReading(folder string) (db *sql.DB, release func() error, err error) {
	path := filepath.Join(folder, DatabaseFile)
	if err := errors.Join(guard(path), checkHeader(path)); err != nil {
		return nil, nil, err
	}
	lock, err := datadir.Lock(folder)
	var used *datadir.InUseError
	if errors.As(err, &used) {
		db, err = openURI(path, url.Values{"mode": {"ro"}, "_pragma": {"busy_timeout(5000)", "trusted_schema(OFF)"}})
		return db, func() error { return db.Close() }, err
	}
	if err != nil {
		return nil, nil, err
	}
	if db, err = openUntouched(path); err != nil {
		return nil, nil, errors.Join(err, lock.Release())
	}
	return db, func() error { return errors.Join(db.Close(), lock.Release()) }, nil
}

// Backup writes a snapshot of a folder's database to a file. Sealed columns stay
// sealed, and the key is not in it. Until all is written and checked, a file that
// is there stays. Names in reserved are the server's own.
func Backup(ctx context.Context, out io.Writer, folder, file string, reserved ...string) error {
	if err := datadir.Named(file, func() error { return checkTarget(folder, file, reserved) }); err != nil {
		return err
	}
	db, release, err := openForReading(folder)
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1) // keyRowsOf opens it with the rights of its owner, who need not reach the file
	rows, err := keyRowsOf(db)
	if err == nil {
		err = datadir.Named(file, func() error { return copyTo(ctx, db, file) })
	}
	if err = errors.Join(err, release()); err != nil {
		return fmt.Errorf("making the backup %s: %w", file, err)
	}
	fmt.Fprintf(out, "%s is written and checked\n", file)
	if err := NoteBackup(folder); err != nil {
		fmt.Fprintln(out, err)
	}
	if len(rows) == 0 {
		fmt.Fprintln(out, "it is in clear: this database was never used by a version that seals what is stored")
	} else if len(rows[len(rows)-1].salt) == 0 {
		fmt.Fprintf(out, "it opens only with key %d, which is not in it; keep a copy of that in another place\n", rows[len(rows)-1].Number)
	}
	return nil
}

// checkTarget refuses to write a backup over something that is none, or under a
// name that the data folder needs.
func checkTarget(folder, file string, reserved []string) error {
	used, err := os.Stat(folder)
	into, errInto := os.Stat(filepath.Dir(file))
	name := filepath.Base(file)
	if err == nil && errInto == nil && os.SameFile(used, into) &&
		(name == datadir.LockFile || slices.Contains(reserved, name) || strings.HasPrefix(name, DatabaseFile) || strings.HasPrefix(name, KeyFile)) {
		return fmt.Errorf("%s is a name that the server uses; write the backup somewhere else", file)
	}
	err = checkNamed(file)
	var strange *datadir.NoFileError
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if errors.As(err, &strange) || file == "-" {
		return fmt.Errorf("cannot write a backup: %w", err)
	}
	return fmt.Errorf("%s is there and is no backup; write it somewhere else, or delete that first", file)
}

// copyTo writes a database to a file of another name, checks it, and has it on
// the disk before it gets its name.
func copyTo(ctx context.Context, db *sql.DB, file string) (err error) {
	temp, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*.tmp") // with mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temp.Name())
		}
	}()
	if err := temp.Close(); err != nil {
		return err
	}
	if _, err := db.ExecContext(ctx, "VACUUM INTO ?", temp.Name()); err != nil {
		return err
	}
	if err := checkWhole(ctx, temp.Name()); err != nil {
		return err
	}
	return datadir.Rename(temp.Name(), file)
}

// checkNamed is checkHeader for a file that the caller named.
func checkNamed(path string) error {
	return headerOf(path, func() (*os.File, error) { return datadir.OpenNamed(path) })
}

// checkWhole checks all of a database file that nobody uses.
func checkWhole(ctx context.Context, path string) error {
	if err := checkNamed(path); err != nil {
		return err
	}
	db, err := openUntouched(path)
	if err != nil {
		return err
	}
	defer db.Close()
	var result string
	if err := db.QueryRowContext(ctx, "PRAGMA integrity_check(1)").Scan(&result); err != nil {
		return fmt.Errorf("checking %s: %w", path, err)
	}
	if result != "ok" {
		return fmt.Errorf("%s is damaged: %s", path, result)
	}
	return nil
}

// restoring is where a backup waits, whole or not, until it gets its name.
const restoring = ".restore"

// Restore puts a backup into a folder that no server uses. A database that is
// there stays, or with force is kept under another name.
func Restore(ctx context.Context, out io.Writer, folder, file string, force bool, src KeySource) error {
	path := filepath.Join(folder, DatabaseFile)
	if err := guard(path); err != nil {
		return err
	}
	if err := datadir.Named(file, func() error { return checkBackup(ctx, file) }); err != nil {
		return err
	}
	lock, err := datadir.Lock(folder)
	if err != nil {
		return err
	}
	err = restoreLocked(ctx, out, path, file, force)
	if err == nil {
		fmt.Fprintf(out, "%s is restored from %s\n", path, file)
		warnOfKey(out, path, src)
	}
	return errors.Join(err, lock.Release())
}

// checkBackup finds out whether a file is a whole backup.
func checkBackup(ctx context.Context, file string) error {
	if err := checkNamed(file); err != nil {
		return fmt.Errorf("%s cannot be restored: %w", file, err)
	}
	if log, err := os.Stat(file + "-wal"); err == nil && log.Size() > 0 {
		return fmt.Errorf("%s is no backup but a database in use: %s-wal beside it is a part of it", file, file)
	}
	if err := checkWhole(ctx, file); err != nil {
		return fmt.Errorf("%s cannot be restored: %w", file, err)
	}
	return nil
}

func restoreLocked(ctx context.Context, out io.Writer, path, file string, force bool) error {
	there := existing(path, path+"-wal")
	if there && !force {
		return fmt.Errorf("there is a database in %s; with -force it is kept under another name and replaced", filepath.Dir(path))
	}
	fresh := path + restoring
	if err := copyChecked(ctx, file, fresh); err != nil {
		return fmt.Errorf("copying %s: %w", file, err)
	}
	if there {
		kept, err := setAside(path)
		if err != nil {
			return fmt.Errorf("setting the database %s aside: %w", path, err)
		}
		fmt.Fprintf(out, "the database that was there is kept as %s\n", kept)
	}
	if err := datadir.Rename(fresh, path); err != nil {
		return fmt.Errorf("putting the backup in its place: %w", err)
	}
	return nil
}

// copyChecked copies a backup and checks the copy; nothing is left of one that fails.
func copyChecked(ctx context.Context, from, to string) error {
	var in *os.File
	err := datadir.Named(from, func() (err error) {
		in, err = datadir.OpenNamed(from)
		return err
	})
	if err != nil {
		return err
	}
	defer in.Close()
	if err := datadir.Create(to, in, 0o600); err != nil {
		return err
	}
	if err := checkWhole(ctx, to); err != nil {
		return errors.Join(err, os.Remove(to))
	}
	return nil
}

// existing reports whether any of these files is there.
func existing(paths ...string) bool {
	for _, path := range paths {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			return true
		}
	}
	return false
}

// setAside gives a database, with its log, another name. Both have it before the
// first loses its old one, so that cut off at any moment the two stay together.
// Then the database goes first: a log without one stops a start, one without its
// log would be older than it should.
func setAside(path string) (kept string, err error) {
	for n := 1; ; n++ {
		kept = fmt.Sprintf("%s.old-%d", path, n)
		if !existing(kept, kept+"-wal", kept+"-shm") {
			break
		}
	}
	move := os.Rename
	if err := linkBoth(path, kept); err == nil {
		move = func(old, _ string) error { return os.Remove(old) }
	} else if !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, fs.ErrPermission) {
		return kept, err
	} // else the file system has no links, as on many USB sticks
	for _, part := range []string{"", "-wal", "-shm"} {
		if err := move(path+part, kept+part); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return kept, err
		}
	}
	return kept, datadir.Sync(filepath.Dir(path))
}

// linkBoth gives a database and its log another name beside their own.
func linkBoth(path, kept string) error {
	for _, part := range []string{"-wal", ""} {
		if err := os.Link(path+part, kept+part); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return datadir.Sync(filepath.Dir(path))
}

// warnOfKey says so where the key that is there does not open what was restored.
func warnOfKey(out io.Writer, path string, src KeySource) {
	rows, err := Keys(path)
	if err == nil && len(rows) > 0 && src.Path != "" {
		_, err = src.unlock(rows)
	}
	if err != nil {
		fmt.Fprintf(out, "but the server will not start with it yet: %v\n", err)
	}
}

// backupNote is the file in the data folder whose time is that of the last backup.
const backupNote = "last-backup"

// NoteBackup notes in a data folder that it was backed up now.
func NoteBackup(folder string) error {
	err := datadir.WriteFile(filepath.Join(folder, backupNote), strings.NewReader(""), 0o600)
	if err == nil {
		err = datadir.GiveToOwner(folder)
	}
	if err != nil {
		return fmt.Errorf("noting the time of the backup: %w", err)
	}
	return nil
}

// LastBackup is when a folder was backed up last, in Unix seconds; 0: never.
func LastBackup(folder string) int64 {
	info, err := os.Lstat(filepath.Join(folder, backupNote))
	if err != nil {
		return 0
	}
	return info.ModTime().Unix()
}
