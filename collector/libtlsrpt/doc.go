// Package libtlsrpt takes sessions from MTAs that use the library of the same
// name, Postfix from 3.10 on: one datagram per TLS negotiation, sent to a Unix
// socket.
//
// [Decode] is the wire format, [Listen] the socket, and [Source.Run] the way
// from the socket to a [collector.Sink]. An MTA that finds the queue of the
// socket full drops the datagram, so one goroutine only empties the queue,
// another decodes, and a third, in [collector.Counter], waits for the disk.
package libtlsrpt
