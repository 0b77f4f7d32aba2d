package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"homeroom/test/wire"
)

// testLog is a log that writes to out, and what slog needs for it.
func testLog(out io.Writer) (*serverLog, *slog.Logger) {
	l := newServerLog(out)
	return l, slog.New(l.handler())
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
func wantTexts(t *testing.T, l *serverLog, want ...string) {
	t.Helper()
	if got := texts(l.last(ringLines)); !slices.Equal(got, want) {
		t.Errorf("the log holds\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestLogLine: a line on stderr is as slog's own text handler writes it.
func TestLogLine(t *testing.T) {
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
	for _, line := range l.last(10) {
		at, _, _ := strings.Cut(strings.TrimPrefix(line, "time="), " ")
		if when, err := time.Parse(lineTime, at); err != nil || time.Since(when).Abs() > time.Hour {
			t.Errorf("the time of %q: %v", line, err)
		}
	}
}

func TestLogLevel(t *testing.T) {
	t.Parallel()
	l, log := testLog(io.Discard)
	cfg := defaultConfig()
	for _, level := range []string{"error", "warn", "info", "debug"} {
		cfg.Log.Level = level
		l.configure(&cfg)
		log.Debug("d " + level)
		log.Info("i " + level)
		log.Warn("w " + level)
		log.Error("e " + level)
		log.Log(t.Context(), levelAudit, "a "+level)
	}
	var got []string
	for _, text := range texts(l.last(100)) {
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

// TestLogFitsProtocol: whatever is logged is one printable line that fits into
// one of the protocol.
func TestLogFitsProtocol(t *testing.T) {
	t.Parallel()
	l, log := testLog(io.Discard)
	for _, text := range []string{
		"\x1b[2J\x07", "a\r\n@mess #warning \"x\"", "\u202e\u2066\u2028\u0085", "\xff\xfe\x80", "\xff\xf6",
		strings.Repeat("x", 5000), strings.Repeat(`"\`, 2000), strings.Repeat("ä€😀", 700), strings.Repeat("\x00", 900),
	} {
		log.Info(text)
		log.Info("m", "k", text)
		log.Info("m", text, 1)
		log.Info("m", slog.Group(text, "k", 1))
		log.WithGroup(text).Info("m", "k", []byte(text))
	}
	lines := l.last(ringLines)
	if len(lines) < 40 {
		t.Errorf("%d lines", len(lines))
	}
	for _, line := range lines {
		if b := eventFrame("log", quoted(line)).show(lookProgram); len(b) > maxLine {
			t.Errorf("%d bytes as a line of the protocol: %q", len(b), line)
		}
		if strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) {
			t.Errorf("not printable: %q", line)
		}
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

// TestLogRing: the last lines stay, in lines and in bytes not more than so many.
func TestLogRing(t *testing.T) {
	t.Parallel()
	var r lineRing
	for i := range 3 * ringLines {
		r.add(fmt.Sprint(i))
	}
	if got := r.last(1 << 30); len(got) != ringLines || got[0] != fmt.Sprint(2*ringLines) {
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
	for range ringLines {
		r.add(strings.Repeat("x", maxLine))
	}
	if got := len(r.last(ringLines)); got != ringBytes/maxLine {
		t.Errorf("%d long lines", got)
	}
}

// TestLogWatch: who watches hears each line from then on, may log itself, and
// hears none after it has stopped.
func TestLogWatch(t *testing.T) {
	t.Parallel()
	l, log := testLog(io.Discard)
	log.Info("before")
	var heard, other []string
	stop := l.watch(func(line string) {
		if heard = append(heard, line); len(heard) == 1 {
			log.Info("from the watcher")
			l.last(1)
		}
	})
	stopOther := l.watch(func(line string) { other = append(other, line) })
	log.Info("first")
	log.Info("second")
	stop()
	log.Info("third")
	stopOther()
	stop()
	log.Info("fourth")
	if want := l.last(5)[:3]; !slices.Equal(heard, want) {
		t.Errorf("heard %q, want %q", heard, want)
	}
	if want := l.last(5)[:4]; !slices.Equal(other, want) {
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

// TestLogSlow: while a line is being written, others are taken at once, a bounded
// number of them; those that are lost are told.
func TestLogSlow(t *testing.T) {
	t.Parallel()
	slow := &slowWriter{begun: make(chan struct{}, 2*longestQueue), goOn: make(chan struct{})}
	l, log := testLog(slow)
	var first sync.WaitGroup
	first.Go(func() { log.Log(t.Context(), levelAudit, "the first") })
	<-slow.begun
	for i := range longestQueue + 5 {
		log.Log(t.Context(), levelAudit, "behind it", "i", i)
	}
	if got := l.last(1); len(got) != 1 || !strings.HasSuffix(got[0], fmt.Sprint("i=", longestQueue+4)) {
		t.Errorf("the last line is %q", got)
	}
	close(slow.goOn)
	first.Wait()
	l.close()
	lines := strings.Split(strings.TrimSuffix(slow.String(), "\n"), "\n")
	if len(lines) != longestQueue+2 || !strings.HasSuffix(lines[1], `level=WARN msg="5 lines could not be written to the log"`) {
		t.Errorf("%d lines, the second is %q", len(lines), lines[1])
	}
}

// TestLogRace: lines from everywhere come out whole, in one order for all.
func TestLogRace(t *testing.T) {
	t.Parallel()
	cfg := defaultConfig()
	cfg.Server.Data, cfg.Log.To, cfg.Log.SizeKiB = t.TempDir(), "file", 1<<10
	l, log := testLog(io.Discard)
	l.configure(&cfg)
	var heard []string
	defer l.watch(func(line string) { heard = append(heard, line) })()
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			for i := range 100 {
				log.Log(t.Context(), levelAudit, "line", "worker", w, "i", i)
				if i%25 == 0 {
					l.reopen()
				}
			}
		})
	}
	all.Wait()
	l.close()
	text, err := os.ReadFile(filepath.Join(cfg.Server.Data, logName))
	if err != nil {
		t.Fatal(err)
	}
	written := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	if len(written) != 800 || !slices.Equal(written, heard) || !slices.Equal(written, l.last(800)) {
		t.Errorf("%d lines written, %d heard, %d remembered", len(written), len(heard), len(l.last(1000)))
	}
}

// TestLogRepeated: the same line again and again is counted, and the count comes
// before the next other line, or after a minute.
func TestLogRepeated(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, log := testLog(io.Discard)
		repeat := func(n int, every time.Duration) {
			for range n {
				log.Warn("no luck", "error", "x")
				time.Sleep(every)
			}
		}
		repeat(10, time.Second)
		log.Info("else")
		log.Info("else")
		log.Info("at last")
		want := []string{
			`level=WARN msg="no luck" error=x`, `level=WARN msg="(repeated 9 times in 10 s) no luck"`,
			`level=INFO msg=else`, `level=INFO msg="(repeated 1 time in 0 s) else"`, `level=INFO msg="at last"`,
		}
		wantTexts(t, l, want...)

		time.Sleep(time.Hour) // forgotten
		repeat(150, time.Second)
		want = append(want, `level=WARN msg="no luck" error=x`, `level=WARN msg="(repeated 59 times in 60 s) no luck"`,
			`level=WARN msg="(repeated 60 times in 60 s) no luck"`)
		wantTexts(t, l, want...)
		time.Sleep(time.Hour)
		want = append(want, `level=WARN msg="(repeated 30 times in 60 s) no luck"`)
		wantTexts(t, l, want...)

		repeat(3, 0)
		l.close()
		wantTexts(t, l, append(want, `level=WARN msg="no luck" error=x`, `level=WARN msg="(repeated 2 times in 0 s) no luck"`)...)
	})
}

// TestLogFlood: of lines that are alike but not the same so many are written in
// a minute; what administrators did is written whatever comes.
func TestLogFlood(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, log := testLog(io.Discard)
		for i := range 1264 {
			log.Warn("wrong password", "address", i)
			time.Sleep(10 * time.Millisecond)
		}
		log.Info("others are written")
		for range 100 {
			log.Log(t.Context(), levelAudit, "somebody was kicked", "by", "admin")
		}
		time.Sleep(time.Hour)
		lines := texts(l.last(ringLines))
		if len(lines) != mostAlike+1+100+1 {
			t.Errorf("%d lines were written", len(lines))
		}
		want := `level=WARN msg="(1234 more like this in 60 s) wrong password"`
		if got := lines[len(lines)-1]; got != want {
			t.Errorf("the last is %s, want %s", got, want)
		}
		if got, want := lines[mostAlike+1], `level=AUDIT msg="somebody was kicked" by=admin`; got != want {
			t.Errorf("what administrators did: %s, want %s", got, want)
		}
	})
}

// TestLogAlternates: messages that take turns are counted too, each at its time.
func TestLogAlternates(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, log := testLog(io.Discard)
		log.Info("early")
		time.Sleep(30 * time.Second)
		for range 100 {
			log.Info("late")
			log.Info("late")
			log.Info("early")
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(time.Hour)
		wantTexts(t, l, "level=INFO msg=early", "level=INFO msg=late",
			`level=INFO msg="(repeated 100 times in 60 s) early"`, `level=INFO msg="(repeated 199 times in 60 s) late"`)
	})
}

// TestLogManyMessages: messages that are never the same are bounded too.
func TestLogManyMessages(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, log := testLog(io.Discard)
		for i := range 5000 {
			log.Info(fmt.Sprint("message ", i))
		}
		if n := countsOf(l); n != mostCounts+1 {
			t.Errorf("%d messages are counted apart", n)
		}
		time.Sleep(time.Hour)
		lines := texts(l.last(ringLines))
		want := fmt.Sprintf(`level=INFO msg="(%d more like this in 60 s) (other messages)"`, 5000-mostCounts-mostAlike)
		if len(lines) != mostCounts+mostAlike+1 || lines[len(lines)-1] != want {
			t.Errorf("%d lines, the last is %s, want %s", len(lines), lines[len(lines)-1], want)
		}
		log.Info("later")
		if n := countsOf(l); n != 1 {
			t.Errorf("%d messages are counted an hour later", n)
		}
	})
}

// countsOf is how many messages a log counts apart from each other.
func countsOf(l *serverLog) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.repeats.counts)
}

// TestLogJournal: where stderr is the journal, the priority is given and the time
// left to it.
func TestLogJournal(t *testing.T) {
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
	cfg := defaultConfig()
	cfg.Log.Level = "debug"
	l.configure(&cfg)
	log.Debug("d")
	log.Info("i", "text", "a\nb")
	log.Log(t.Context(), levelAudit, "a")
	log.Warn("w")
	log.Error("e")
	got, err := os.ReadFile(file.Name())
	want := "<7>level=DEBUG msg=d\n<6>level=INFO msg=i text=\"a\\nb\"\n<5>level=AUDIT msg=a\n<4>level=WARN msg=w\n<3>level=ERROR msg=e\n"
	if err != nil || string(got) != want {
		t.Errorf("got %q (%v), want %q", got, err, want)
	}
	if line := l.last(1)[0]; !strings.HasPrefix(line, "time=") || isJournal(&bytes.Buffer{}) {
		t.Errorf("in memory: %q", line)
	}
}

// TestLogReaderGone: the server does not end because nobody reads its log.
func TestLogReaderGone(t *testing.T) {
	t.Parallel()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	cmd := exec.Command(buildProgram(t), "-config", writeSettings(t, programSettings), "-data", data)
	cmd.Stderr = writer
	reader.Close()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	writer.Close()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	waitUntilServing(t, data, ended)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("a server with nobody at its log: %v", err)
	}
}

// waitUntilServing waits until a program that cannot say so answers on the control
// socket of its data folder.
func waitUntilServing(t *testing.T, folder string, ended chan error) {
	t.Helper()
	for began := time.Now(); tryFolder(t, folder) == nil; {
		select {
		case err := <-ended:
			t.Fatalf("the program has ended: %v", err)
		default:
		}
		if time.Since(began) > wire.Patience {
			t.Fatal("the program does not serve")
		}
	}
}
