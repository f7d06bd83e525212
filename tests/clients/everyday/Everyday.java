import java.io.ByteArrayInputStream;
import java.net.HttpURLConnection;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.concurrent.Callable;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicLong;

/** Java's own clients with their defaults, 20 at once. */
public class Everyday {
    static final String BODY = "{\"payload\": \"0\"}";

    static void check(int code, String body, String wanted) {
        if (code != 200 || !body.contains(wanted)) throw new AssertionError(code + " " + body);
    }

    /** One call of each of 20 threads, begun at once. */
    static void run(String name, Callable<Void> call) throws Exception {
        var slowest = new AtomicLong();
        var threads = Executors.newFixedThreadPool(20);
        Callable<Void> timed = () -> {
            long began = System.nanoTime();
            call.call();
            slowest.accumulateAndGet((System.nanoTime() - began) / 1_000_000, Math::max);
            return null;
        };
        for (var done : threads.invokeAll(java.util.Collections.nCopies(20, timed))) done.get();
        threads.shutdown();
        System.out.println(slowest + " ms  " + name);
    }

    static Callable<Void> post(HttpClient client, URI jobs, java.util.function.Supplier<BodyPublisher> body) {
        return () -> {
            var request = HttpRequest.newBuilder(jobs).POST(body.get()).build();
            var response = client.send(request, BodyHandlers.ofString());
            check(response.statusCode(), response.body(), "\"name\"");
            return null;
        };
    }

    public static void main(String[] args) throws Exception {
        var jobs = URI.create(args[0] + "/api/v1/jobs");
        var client = HttpClient.newHttpClient();
        // Loads the classes: that is no call's time.
        client.send(HttpRequest.newBuilder(URI.create(args[0] + "/health/live")).build(), BodyHandlers.ofString());
        run("java.net.http, POST", post(client, jobs, () -> BodyPublishers.ofString(BODY)));
        run("java.net.http, POST of a stream", post(client, jobs,
            () -> BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(BODY.getBytes()))));
        run("java.net.http, GET", () -> {
            var response = client.send(HttpRequest.newBuilder(jobs).build(), BodyHandlers.ofString());
            check(response.statusCode(), response.body(), "[");
            return null;
        });
        run("java.net.HttpURLConnection, POST", () -> {
            var connection = (HttpURLConnection) jobs.toURL().openConnection();
            connection.setDoOutput(true);
            connection.getOutputStream().write(BODY.getBytes());
            var body = new String(connection.getInputStream().readAllBytes());
            check(connection.getResponseCode(), body, "\"name\"");
            return null;
        });
    }
}
