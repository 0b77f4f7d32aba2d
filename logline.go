package main

import (
	"fmt"
	"log/slog"
	"strconv"
	"time"
	"unicode/utf8"
)

// logLine is one line of the log; text is level=… msg=… and so on, printable.
type logLine struct {
	at    time.Time
	level slog.Level
	text  string
}

// ownLine is a line that the log says about itself.
func ownLine(level slog.Level, message string) logLine {
	text := "level=" + level.String() + " msg=" + strconv.Quote(message)
	return logLine{at: time.Now(), level: level, text: cutLine(text, longestText)}
}

// lineTime is how slog's own text handler shows the time.
const lineTime = "2006-01-02T15:04:05.000Z07:00"

// String is the line as a terminal and #log show it.
func (l logLine) String() string { return "time=" + l.at.Format(lineTime) + " " + l.text }

// encode is the line as it is written; for the journal with its priority
// (sd-daemon(3)) in place of the time.
func (l logLine) encode(journal bool) []byte {
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
	case level >= levelAudit:
		return 5
	case level >= slog.LevelInfo:
		return 6
	}
	return 7
}

// longestText is how long a line may be without its time, quoted: with that and
// what stands around it, it fits into a line of the protocol.
const longestText = maxLine - len(`@mess #log "time=`+lineTime+` "`+"\r\n")

// cutLine cuts a line that is longer than most as appendQuoted shows it.
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
