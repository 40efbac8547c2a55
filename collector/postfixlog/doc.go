// Package postfixlog reads the log of a Postfix SMTP client (3.4 to 3.11) and
// yields its TLS negotiations, one [Session] each.
//
// A [Parser] takes whole lines. It finds the few that matter without reading the
// others ([Parser.Parse]), takes off whatever prefix a log daemon put before them
// (prefix.go), reads the grammar of smtp(8) and tlsproxy(8) (line.go), and joins
// the lines of one delivery (delivery.go, proxy.go). What it waits for survives a
// restart ([Parser.State]).
//
// A [Source] counts what a log says. One goroutine reads and finds the lines that
// may matter (ahead.go), one parses them (source.go), one counts sessions
// (count.go), one commits. They hand over whole chunks, and a commit waits until
// all that was parsed is counted.
//
// A log proves less than an event. Where the recipient domain of a session is not
// certain, or nothing proves how it ended, the session is dropped and counted by
// the reason for that ([Drop]); nothing is guessed.
package postfixlog
