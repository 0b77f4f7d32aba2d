package store

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"homeroom/datadir"
)

// Space is what the store takes of the disk, and what it could still take.
type Space struct {
	Used int64 // of the database, with what waits to be written, without what is free in it
	Free int64 // on the disk and in the database, without what waits
	Disk int64 // the size of the file system
}

// pages is the size of a database, as the last transaction left it.
type pages struct{ count, free int64 }

// waitingCost is how much space a byte that waits may take for a while: it is written to
// the log, and then to the database.
const waitingCost = 2

// Space measures the disk; where it cannot, there is no end of it.
func (st *SQLite) Space() Space {
	p := st.writer.pages.Load()
	free, size := diskSpace(filepath.Dir(st.path))
	waiting := st.queue.waiting.Load()
	return Space{
		Used: (p.count-p.free)*pageSize + waiting,
		Free: free + p.free*pageSize - waitingCost*waiting,
		Disk: size,
	}
}

// diskSpace is what is free on a folder's file system, and its size.
func diskSpace(folder string) (free, size int64) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(folder, &s); err != nil {
		return 1 << 50, 1 << 50
	}
	unit := int64(s.Frsize)
	if unit == 0 {
		unit = int64(s.Bsize)
	}
	return int64(s.Bavail) * unit, int64(s.Blocks) * unit
}

// measure notes how large the database is. Where that fails the next transaction will
// tell: this one is stored.
func (w *writer) measure() {
	p := &pages{}
	if errors.Join(w.stmts.pageCount.QueryRow().Scan(&p.count), w.stmts.freePages.QueryRow().Scan(&p.free)) == nil {
		w.pages.Store(p)
	}
}

// again tries a transaction once more for which there was no space: a checkpoint lets the
// log begin anew in the space that it has, and what deletes may have the spare file's.
func (w *writer) again(b batch, status int64) error {
	w.fold(0)
	err := w.transaction(b, status)
	if isDiskFull(err) && b.makesSpace() && os.Remove(filepath.Join(w.folder, spareFile)) == nil {
		w.fold(0)
		err = w.transaction(b, status)
	}
	return err
}

// skipNumbers begins status numbers far from those that the database knows of: as long as
// it cannot be told how many are given, the next start must not come upon the same ones.
func (w *writer) skipNumbers(q *queue) {
	q.status.Add(statusBlock * (1 + rand.Int64N(1<<30)))
	q.moreDue = true
	q.statusMark.Store(math.MaxInt64)
}

// makesSpace reports whether something in a batch is deleted.
func (b batch) makesSpace() bool {
	return slices.ContainsFunc(b.changes, func(c *change) bool { return c.verb == verbRemove || c.verb == verbThread || c.verb == verbPurge })
}

// size is what a change adds to the database, about.
func (c *change) size() int64 {
	if c.verb > verbReplace {
		return 0
	}
	return c.rec.Size()
}

// recordCost is what a record takes besides its head and body: numbers, seals, indexes.
const recordCost = 160

// Size is what a record takes of the disk, about.
func (r *Record) Size() int64 { return int64(len(r.Head)+len(r.Body)) + recordCost }

// spareFile is space that the store keeps for its next start: SQLite needs files beside
// the database before it can read it.
const spareFile = "homeroom.spare"

// spareSize is how large that file is: for the log's index, and a log.
const spareSize = 1 << 20

// keepSpare makes the spare file, where there is none, if that leaves so much free. On a
// disk that is full it is as large as it can be.
func keepSpare(folder string, leave int64) {
	path := filepath.Join(folder, spareFile)
	if info, err := os.Lstat(path); err == nil && info.Size() == spareSize {
		return
	}
	if free, _ := diskSpace(folder); leave > 0 && free < spareSize+leave {
		return
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return // only a start on a full disk needs it
	}
	defer file.Close()
	piece := make([]byte, spareSize/64)
	for range spareSize / len(piece) {
		if _, err := file.Write(piece); err != nil {
			return
		}
	}
}

// startSize is how much space a start needs, about.
const startSize = 128 << 10

// useSpare gives some of the spare file's space to a start that might fail without.
func useSpare(folder string) error {
	path := filepath.Join(folder, spareFile)
	info, err := os.Lstat(path)
	if free, _ := diskSpace(folder); free >= startSize || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && info.Size() > startSize && info.Mode().IsRegular() {
		err = os.Truncate(path, info.Size()-startSize)
	} else if err == nil {
		err = os.Remove(path)
	}
	if err == nil {
		err = datadir.Sync(folder)
	}
	if err != nil {
		return fmt.Errorf("making space for the database: %w", err)
	}
	return nil
}

// fillIndex gives the log's index the space that it seems to have: SQLite leaves holes in
// it, and after a kill on a full disk there would be no space for them. The file must not
// be closed before the database is: that would end SQLite's locks.
func (st *SQLite) fillIndex() {
	st.index = -1
	fd, err := syscall.Open(st.path+"-shm", syscall.O_RDWR|syscall.O_CLOEXEC|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return
	}
	st.index = fd
	_ = syscall.Fallocate(fd, 0, 0, indexSize) // where that fails there is the spare file
}

// indexSize is the least size of a log's index.
const indexSize = 32 << 10
