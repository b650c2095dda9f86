package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// Limits of the response parser: what these servers send is far smaller.
const (
	maxHeaders = 64
	maxBody    = 64 << 10 // bytes
)

// response is one HTTP/1.1 answer, as much of it as the benchmark looks at. It is reused from request to
// request so that reading allocates nothing: body is valid until the next read.
type response struct {
	status int
	body   []byte
	closes bool // the server announced "Connection: close"
}

// read parses one response: status line, Content-Length or chunked body. It is no general client: it
// refuses what the servers measured here never send (1xx answers, a body delimited by the end of the connection).
func (r *response) read(br *bufio.Reader) error {
	line, err := readLine(br)
	if err != nil {
		return err
	}
	// "HTTP/1.1 200 OK"
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) || (len(line) > 12 && line[12] != ' ') {
		return fmt.Errorf("status line %q", line)
	}
	if r.status, err = strconv.Atoi(string(line[9:12])); err != nil || r.status < 200 {
		return fmt.Errorf("status line %q", line)
	}
	r.body, r.closes = r.body[:0], false
	length, err := r.readHeaders(br)
	if err != nil {
		return err
	}
	if length == chunked {
		return r.readChunks(br)
	}
	return r.appendBody(br, length)
}

// chunked is the length that stands for "Transfer-Encoding: chunked".
const chunked = -2

// readHeaders reads to the empty line and returns the length of the body.
func (r *response) readHeaders(br *bufio.Reader) (int, error) {
	const unknown = -1
	length := unknown
	for range maxHeaders {
		line, err := readLine(br)
		if err != nil {
			return 0, unexpected(err)
		}
		if len(line) == 0 {
			if length == unknown {
				return 0, errors.New("neither Content-Length nor chunked")
			}
			return length, nil
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			return 0, fmt.Errorf("header line %q", line)
		}
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(value)); err != nil || length < 0 {
				return 0, fmt.Errorf("header line %q", line)
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			if !bytes.EqualFold(value, []byte("chunked")) {
				return 0, fmt.Errorf("header line %q", line)
			}
			length = chunked
		case bytes.EqualFold(name, []byte("Connection")):
			r.closes = bytes.EqualFold(value, []byte("close"))
		}
	}
	return 0, fmt.Errorf("more than %d headers", maxHeaders)
}

// readChunks reads a chunked body without trailers.
func (r *response) readChunks(br *bufio.Reader) error {
	for {
		line, err := readLine(br)
		if err != nil {
			return unexpected(err)
		}
		size, err := strconv.ParseUint(string(line), 16, 31)
		if err != nil {
			return fmt.Errorf("chunk size %q", line)
		}
		if err := r.appendBody(br, int(size)); err != nil {
			return err
		}
		end, err := readLine(br)
		if err != nil {
			return unexpected(err)
		}
		if len(end) != 0 {
			return fmt.Errorf("%q after a chunk", end)
		}
		if size == 0 {
			return nil
		}
	}
}

// appendBody reads n more bytes of body.
func (r *response) appendBody(br *bufio.Reader, n int) error {
	have := len(r.body)
	if n > maxBody-have {
		return fmt.Errorf("body of more than %d bytes", maxBody)
	}
	if have+n > cap(r.body) {
		r.body = append(make([]byte, 0, 2*(have+n)), r.body...)
	}
	r.body = r.body[:have+n]
	_, err := io.ReadFull(br, r.body[have:])
	return unexpected(err)
}

// readLine returns the next line without its CRLF; it is valid until the next read.
func readLine(br *bufio.Reader) ([]byte, error) {
	line, err := br.ReadSlice('\n')
	if err != nil {
		if err == io.EOF && len(line) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return bytes.TrimSuffix(line[:len(line)-1], []byte("\r")), nil
}

// unexpected turns the end of the stream inside a response into an error that says so.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// accessToken returns the value of the access_token member, or nothing. It looks, it does not decode: good
// enough to tell an answer from an error at no cost, since a JWT needs no escapes.
func accessToken(body []byte) []byte {
	_, rest, ok := bytes.Cut(body, []byte(`"access_token"`))
	if !ok {
		return nil
	}
	rest = bytes.TrimLeft(rest, " \t\r\n")
	rest, ok = bytes.CutPrefix(rest, []byte(":"))
	if !ok {
		return nil
	}
	rest = bytes.TrimLeft(rest, " \t\r\n")
	rest, ok = bytes.CutPrefix(rest, []byte(`"`))
	if !ok {
		return nil
	}
	value, _, ok := bytes.Cut(rest, []byte(`"`))
	if !ok {
		return nil
	}
	return value
}
