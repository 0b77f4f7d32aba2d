package store

import (
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"syscall"

	"homeroom/datadir"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// SQLite's extended codes that matter here (https://www.sqlite.org/rescode.html).
const (
	ioerrFsync    = sqlite3.SQLITE_IOERR | 4<<8  // 1034
	ioerrDirFsync = sqlite3.SQLITE_IOERR | 5<<8  // 1290
	ioerrShmSize  = sqlite3.SQLITE_IOERR | 19<<8 // 4874
	ioerrInPage   = sqlite3.SQLITE_IOERR | 34<<8 // 8714
)

// isSyncFailure reports whether the disk could not keep what it had taken. Nobody
// knows what it holds then: the system forgets pages that it could not write.
func isSyncFailure(err error) bool {
	var e *sqlite.Error
	var file *fs.PathError
	if errors.As(err, &file) {
		return file.Op == "sync"
	}
	return errors.As(err, &e) && (e.Code() == ioerrFsync || e.Code() == ioerrDirFsync)
}

// isDiskFull reports whether there is no space left. Where there is none for the
// write-ahead log (-wal), there is none for its index (-shm) either, or for a hole in that.
func isDiskFull(err error) bool {
	var e *sqlite.Error
	return errors.Is(err, syscall.ENOSPC) ||
		errors.As(err, &e) && (e.Code()&0xff == sqlite3.SQLITE_FULL || e.Code() == ioerrShmSize || e.Code() == ioerrInPage)
}

// ExplainFull adds to the error of a command what to do about a full disk.
func ExplainFull(err error) error {
	if !isDiskFull(err) {
		return err
	}
	return fmt.Errorf("the disk is full; nothing is lost; make space on it, then do this again (%w)", err)
}

// judge checks the outcome of a write: after a failed sync the writer writes nothing
// any more, since a second sync would report success for what is lost.
func (w *writer) judge(err error) error {
	if !isSyncFailure(err) {
		return err
	}
	w.broken = err
	if w.failed != nil {
		w.failed(err)
	}
	return err
}

// foldFrames is how many pages the write-ahead log has before a checkpoint.
const foldFrames = 4000

// fold makes a checkpoint: it brings the write-ahead log into the database once it
// has least pages. SQLite would do this by itself inside COMMIT, but would not say
// when a sync fails. All changes are answered before: what is in the log is safe.
func (w *writer) fold(least int) {
	if w.broken != nil {
		return
	}
	var busy, frames, done int
	err := w.stmts.logSize.QueryRow().Scan(&busy, &frames, &done)
	if err == nil && (frames < least || frames == done) {
		return
	}
	if err == nil {
		err = w.stmts.fold.QueryRow().Scan(&busy, &frames, &done)
	}
	if err = w.judge(err); err != nil && !w.foldFailing && w.broken == nil {
		slog.Error("cannot fold the log into the database; it grows until that works", "error", err)
	}
	w.foldFailing = err != nil
}

// foldAll makes a checkpoint of all of the write-ahead log, so that the database's
// file is whole.
func foldAll(db *sql.DB) error {
	var busy, frames, done int
	err := db.QueryRow("PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &frames, &done)
	if err == nil && busy != 0 {
		err = errors.New("another program has it open")
	}
	if err != nil {
		return fmt.Errorf("folding the log into the database: %w", err)
	}
	return nil
}

// renewLog writes the write-ahead log that a killed server left once more, as it is,
// and syncs it. After a failed sync the system shows pages that are not on the disk
// and never will be unless they are written again; what is stored after them would
// be lost with them.
func renewLog(path string) error {
	file, err := datadir.Open(path+"-wal", os.O_RDWR)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("opening the log of the database: %w", err)
	}
	defer file.Close()
	piece := make([]byte, 1<<20)
	for at := int64(0); ; {
		n, err := file.ReadAt(piece, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("reading the log of the database: %w", err)
		}
		if n == 0 {
			break
		}
		if _, err := file.WriteAt(piece[:n], at); err != nil {
			return fmt.Errorf("renewing the log of the database: %w", err)
		}
		at += int64(n)
	}
	if err := file.Sync(); err != nil {
		return fmt.Errorf("renewing the log of the database: %w", err)
	}
	return nil
}
