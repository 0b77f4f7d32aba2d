package logbook

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// testLog is a log that writes to out, and what slog needs for it.
func testLog(out io.Writer) (*Log, *slog.Logger) {
	l := New(out)
	return l, slog.New(l.Handler())
}

// texts is lines without their times.
func texts(lines []string) (out []string) {
	for _, line := range lines {
		_, text, _ := strings.Cut(line, " ")
		out = append(out, text)
	}
	return out
}

// wantTexts compares the lines that a log remembers, without their times.
func wantTexts(t *testing.T, l *Log, want ...string) {
	t.Helper()
	if got := texts(l.Last(Kept)); !slices.Equal(got, want) {
		t.Errorf("the log holds\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestLine: a line on stderr is as slog's own text handler writes it.
func TestLine(t *testing.T) {
	t.Parallel()
	var got, want bytes.Buffer
	l, ours := testLog(&got)
	for _, log := range []*slog.Logger{ours, slog.New(slog.NewTextHandler(&want, nil))} {
		log.Info("plain")
		log.Warn("two words", "error", errors.New("no \"luck\"\n\x1b[2J"), "n", 5)
		log.With("who", "x y").WithGroup("g").With("a", 1).Error("grouped", "b", "\u202e")
		log.Debug("not shown")
	}
	withoutTime := func(text string) (out []string) { return texts(strings.Split(text, "\n")) }
	if !slices.Equal(withoutTime(got.String()), withoutTime(want.String())) {
		t.Errorf("got\n%s\nwant\n%s", got.String(), want.String())
	}
	for _, line := range l.Last(10) {
		at, _, _ := strings.Cut(strings.TrimPrefix(line, "time="), " ")
		if when, err := time.Parse(lineTime, at); err != nil || time.Since(when).Abs() > time.Hour {
			t.Errorf("the time of %q: %v", line, err)
		}
	}
}

func TestLevel(t *testing.T) {
	t.Parallel()
	l, log := testLog(io.Discard)
	for _, o := range []slog.Level{slog.LevelError, slog.LevelWarn, slog.LevelInfo, slog.LevelDebug} {
		level := strings.ToLower(o.String())
		l.Configure(Options{Level: o})
		log.Debug("d " + level)
		log.Info("i " + level)
		log.Warn("w " + level)
		log.Error("e " + level)
		log.Log(t.Context(), LevelAudit, "a "+level)
	}
	var got []string
	for _, text := range texts(l.Last(100)) {
		got = append(got, text[len("level="):len("level=")+1]+strings.Trim(text[strings.Index(text, "msg=")+6:], `" `))
	}
	want := []string{
		"Eerror", "Aerror", "Wwarn", "Ewarn", "Awarn", "Iinfo", "Winfo", "Einfo", "Ainfo",
		"Ddebug", "Idebug", "Wdebug", "Edebug", "Adebug",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestCutLine(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		line string
		most int
		want string
	}{
		{"", 10, ""}, {"0123456789", 10, "0123456789"}, {"0123456789a", 10, "0123456…"},
		{`01234567"`, 10, `01234567"`}, {`01234567""`, 10, `0123456…`}, {`"""""""`, 10, `"""…`},
		{"012345ä789", 10, "012345…"}, {"01234567ä", 10, "01234567ä"}, {"\xff\xff\xff\xff", 10, "\xff\xff…"},
	} {
		if got := cutLine(test.line, test.most); got != test.want {
			t.Errorf("%q cut to %d: %q, want %q", test.line, test.most, got, test.want)
		}
	}
}

// TestRing: the last lines stay, in lines and in bytes not more than so many.
func TestRing(t *testing.T) {
	t.Parallel()
	var r lineRing
	for i := range 3 * Kept {
		r.add(fmt.Sprint(i))
	}
	if got := r.last(1 << 30); len(got) != Kept || got[0] != fmt.Sprint(2*Kept) {
		t.Errorf("%d lines from %q", len(got), got[0])
	}
	if got := r.last(2); !slices.Equal(got, []string{"2998", "2999"}) {
		t.Errorf("the last two: %q", got)
	}
	if got := r.last(0); len(got) != 0 {
		t.Errorf("the last none: %q", got)
	}
	if got := r.last(-5); len(got) != 0 {
		t.Errorf("the last -5: %q", got)
	}
	for range Kept {
		r.add(strings.Repeat("x", 1000))
	}
	if got := len(r.last(Kept)); got != keptBytes/1000 {
		t.Errorf("%d long lines", got)
	}
}

// TestWatch: a watcher gets each line from then on, may log itself, and gets
// none after it has stopped.
func TestWatch(t *testing.T) {
	t.Parallel()
	l, log := testLog(io.Discard)
	log.Info("before")
	var heard, other []string
	stop := l.Watch(func(line string) {
		if heard = append(heard, line); len(heard) == 1 {
			log.Info("from the watcher")
			l.Last(1)
		}
	})
	stopOther := l.Watch(func(line string) { other = append(other, line) })
	log.Info("first")
	log.Info("second")
	stop()
	log.Info("third")
	stopOther()
	stop()
	log.Info("fourth")
	if want := l.Last(5)[:3]; !slices.Equal(heard, want) {
		t.Errorf("heard %q, want %q", heard, want)
	}
	if want := l.Last(5)[:4]; !slices.Equal(other, want) {
		t.Errorf("the other heard %q, want %q", other, want)
	}
}

// slowWriter is a place to write to that lets nothing through until it is told.
type slowWriter struct {
	begun, goOn chan struct{}
	bytes.Buffer
}

func (w *slowWriter) Write(b []byte) (int, error) {
	w.begun <- struct{}{}
	<-w.goOn
	return w.Buffer.Write(b)
}

// TestSlow: while a line is being written, others are taken at once, a bounded
// number of them; those that are lost are told.
func TestSlow(t *testing.T) {
	t.Parallel()
	slow := &slowWriter{begun: make(chan struct{}, 2*longestQueue), goOn: make(chan struct{})}
	l, log := testLog(slow)
	var first sync.WaitGroup
	first.Go(func() { log.Log(t.Context(), LevelAudit, "the first") })
	<-slow.begun
	for i := range longestQueue + 5 {
		log.Log(t.Context(), LevelAudit, "behind it", "i", i)
	}
	if got := l.Last(1); len(got) != 1 || !strings.HasSuffix(got[0], fmt.Sprint("i=", longestQueue+4)) {
		t.Errorf("the last line is %q", got)
	}
	close(slow.goOn)
	first.Wait()
	l.Close()
	lines := strings.Split(strings.TrimSuffix(slow.String(), "\n"), "\n")
	if len(lines) != longestQueue+2 || !strings.HasSuffix(lines[1], `level=WARN msg="5 lines could not be written to the log"`) {
		t.Errorf("%d lines, the second is %q", len(lines), lines[1])
	}
}

// TestRace: lines from everywhere come out whole, in one order for all.
func TestRace(t *testing.T) {
	t.Parallel()
	o := Options{File: filepath.Join(t.TempDir(), "log"), Size: 1 << 20}
	l, log := testLog(io.Discard)
	l.Configure(o)
	var heard []string
	defer l.Watch(func(line string) { heard = append(heard, line) })()
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			for i := range 100 {
				log.Log(t.Context(), LevelAudit, "line", "worker", w, "i", i)
				if i%25 == 0 {
					l.Configure(o)
				}
			}
		})
	}
	all.Wait()
	l.Close()
	text, err := os.ReadFile(o.File)
	if err != nil {
		t.Fatal(err)
	}
	written := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	if len(written) != 800 || !slices.Equal(written, heard) || !slices.Equal(written, l.Last(800)) {
		t.Errorf("%d lines written, %d heard, %d remembered", len(written), len(heard), len(l.Last(1000)))
	}
}

// TestFlood: of one message so many lines are written in a minute, the same or not;
// what was dropped is counted, and said with the next line or at the end. What
// administrators did is written whatever comes.
func TestFlood(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, log := testLog(io.Discard)
		line := func(i int) string { return fmt.Sprintf(`level=WARN msg="wrong password" address=%d`, i) }
		var want []string
		flood := func(from, to int) {
			for i := from; i < to; i++ {
				log.Warn("wrong password", "address", i)
				time.Sleep(100 * time.Millisecond)
			}
			for i := from; i < from+bucketSize; i++ {
				want = append(want, line(i))
			}
		}
		flood(0, 600)
		want = append(want, `level=WARN msg="(570 more like this in 60 s) wrong password"`)
		flood(600, 700)
		for range 100 {
			log.Log(t.Context(), LevelAudit, "somebody was kicked", "by", "admin")
			want = append(want, "level=AUDIT msg=\"somebody was kicked\" by=admin")
		}
		log.Info("others are written")
		want = append(want, `level=INFO msg="others are written"`)
		time.Sleep(time.Hour)
		wantTexts(t, l, want...)
		log.Info("the next")
		want = append(want, `level=WARN msg="(70 more like this in 60 s) wrong password"`, `level=INFO msg="the next"`)
		flood(700, 740)
		l.Close()
		wantTexts(t, l, append(want, `level=WARN msg="(10 more like this in 4 s) wrong password"`)...)
	})
}

// TestManyMessages: messages that are never the same are bounded too.
func TestManyMessages(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, log := testLog(io.Discard)
		for i := range 5000 {
			log.Info(fmt.Sprint("message ", i))
		}
		if n := len(l.buckets); n != mostBuckets+1 {
			t.Errorf("%d messages are counted apart", n)
		}
		time.Sleep(time.Hour)
		log.Info("later")
		lines := texts(l.Last(Kept))
		want := fmt.Sprintf(`level=INFO msg="(%d more like this in 60 s) (other messages)"`, 5000-mostBuckets-bucketSize)
		if len(lines) != mostBuckets+bucketSize+2 || lines[len(lines)-2] != want {
			t.Errorf("%d lines, the last but one is %s, want %s", len(lines), lines[len(lines)-2], want)
		}
		if n := len(l.buckets); n != 1 {
			t.Errorf("%d messages are counted an hour later", n)
		}
	})
}

// TestJournal: where stderr is the journal, the priority is given and the time
// left to it.
func TestJournal(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "journal"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var stat syscall.Stat_t
	if err := syscall.Fstat(int(file.Fd()), &stat); err != nil {
		t.Fatal(err)
	}
	t.Setenv("JOURNAL_STREAM", fmt.Sprintf("%d:%d", stat.Dev, stat.Ino+1))
	if isJournal(file) {
		t.Error("another file is taken for the journal")
	}
	t.Setenv("JOURNAL_STREAM", fmt.Sprintf("%d:%d", stat.Dev, stat.Ino))
	l, log := testLog(file)
	l.Configure(Options{Level: slog.LevelDebug})
	log.Debug("d")
	log.Info("i", "text", "a\nb")
	log.Log(t.Context(), LevelAudit, "a")
	log.Warn("w")
	log.Error("e")
	got, err := os.ReadFile(file.Name())
	want := "<7>level=DEBUG msg=d\n<6>level=INFO msg=i text=\"a\\nb\"\n<5>level=AUDIT msg=a\n<4>level=WARN msg=w\n<3>level=ERROR msg=e\n"
	if err != nil || string(got) != want {
		t.Errorf("got %q (%v), want %q", got, err, want)
	}
	if line := l.Last(1)[0]; !strings.HasPrefix(line, "time=") || isJournal(&bytes.Buffer{}) {
		t.Errorf("in memory: %q", line)
	}
}
