package logbook

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"homeroom/datadir"
)

// logFile is a file that is rotated before it gets too large: homeroom.log, then
// homeroom.log.1 and so on, the oldest last. Numbers, not times: a machine that
// wakes up in 1970 would else delete the newest. It is opened when it is needed.
type logFile struct {
	path string
	most int64 // bytes in one file
	keep int   // older files

	file *os.File // nil: not open
	size int64
	torn bool // the last line was written in part
}

// newLogFile returns the file that the options name; nil: the log goes to stderr.
func newLogFile(o Options) *logFile {
	if o.File == "" {
		return nil
	}
	return &logFile{path: o.File, most: o.Size, keep: o.Keep}
}

// write appends a line. After a failure the next one tries everything again.
func (f *logFile) write(line []byte) error {
	if f.torn {
		line = append([]byte{'\n'}, line...)
	}
	if err := f.ready(int64(len(line))); err != nil {
		return err
	}
	n, err := f.file.Write(line)
	f.size += int64(n)
	f.torn = err != nil && (n > 0 || f.torn)
	return err
}

// ready sees to it that the file is open and has space for so many bytes.
func (f *logFile) ready(bytes int64) error {
	if err := f.open(); err != nil {
		return err
	}
	if f.size == 0 || f.size+bytes <= f.most {
		return nil
	}
	f.close()
	if err := f.rotate(); err != nil {
		return err
	}
	return f.open()
}

// open opens the file if it is not open.
func (f *logFile) open() error {
	if f.file != nil {
		return nil
	}
	file, err := datadir.Open(f.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return errors.Join(err, file.Close())
	}
	f.file, f.size = file, info.Size()
	return nil
}

// close closes the file; the next line opens it again.
func (f *logFile) close() {
	if f == nil || f.file == nil {
		return
	}
	_ = f.file.Close() // what was written is written
	f.file = nil
}

// rotate gives each file the next number. Those past f.keep go, also where it
// was more before.
func (f *logFile) rotate() error {
	for n := f.keep; ; n++ {
		err := os.Remove(f.name(n))
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return err
		}
	}
	for n := f.keep - 1; n >= 0; n-- {
		if err := os.Rename(f.name(n), f.name(n+1)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// name is the nth file, the current one being 0.
func (f *logFile) name(n int) string {
	if n == 0 {
		return f.path
	}
	return fmt.Sprintf("%s.%d", f.path, n)
}
