import java.nio.file.Path;
import java.util.Map;
import org.opensearch.common.logging.LogConfigurator;
import org.opensearch.common.settings.Settings;
import org.opensearch.node.InternalSettingsPreparer;
import org.opensearch.node.Node;

/** Starts one OpenSearch node: home folder, then configuration folder. */
public class Main {
  public static void main(String[] folders) throws Exception {
    LogConfigurator.registerErrorListener();
    Settings home = Settings.builder().put("path.home", folders[0]).build();
    new Node(InternalSettingsPreparer.prepareEnvironment(home, Map.of(), Path.of(folders[1]), () -> "node")).start();
    Thread.currentThread().join();
  }
}
