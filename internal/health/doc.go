// Package health tells whether the agent does its work: whether its sources run
// and see sessions, the store takes what they count, and deliveries go on.
package health
