package logbook

import (
	"fmt"
	"log/slog"
	"strconv"
	"time"
	"unicode/utf8"
)

// entry is one line of the log; text is level=… msg=… and so on, printable.
type entry struct {
	at    time.Time
	level slog.Level
	text  string
}

// own makes a line that the log says about itself.
func (l *Log) own(level slog.Level, message string) entry {
	return entry{at: time.Now(), level: level, text: cutLine(ownText(level, message), int(l.longest.Load()))}
}

// ownText is a line without its time, as slog's own text handler writes it.
func ownText(level slog.Level, message string) string {
	return "level=" + level.String() + " msg=" + strconv.Quote(message)
}

// lineTime is how slog's own text handler shows the time.
const lineTime = "2006-01-02T15:04:05.000Z07:00"

// String is the line as it is shown and kept, with its time.
func (l entry) String() string { return "time=" + l.at.Format(lineTime) + " " + l.text }

// encode is the line as it is written; for the journal with its priority
// (sd-daemon(3)) in place of the time.
func (l entry) encode(journal bool) []byte {
	if journal {
		return fmt.Appendf(nil, "<%d>%s\n", priority(l.level), l.text)
	}
	return append([]byte(l.String()), '\n')
}

// priority is a level as syslog counts.
func priority(level slog.Level) int {
	switch {
	case level >= slog.LevelError:
		return 3
	case level >= slog.LevelWarn:
		return 4
	case level >= LevelAudit:
		return 5
	case level >= slog.LevelInfo:
		return 6
	}
	return 7
}

// cutLine cuts a line that is longer than most once its quotes and backslashes have
// a backslash each.
func cutLine(line string, most int) string {
	const cut = "…"
	size, fits := 0, 0
	for i, r := range line {
		if size <= most-len(cut) {
			fits = i
		}
		size += utf8.RuneLen(r)
		if r == '"' || r == '\\' {
			size++
		}
		if size > most {
			return line[:fits] + cut
		}
	}
	return line
}

// counted is a number of things in words: "1 line", "2 lines".
func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}
